"""What has been computed: a folder a step, with `record.json` in it; the record's existence means that the step is done.

    <store>/checkpoints/<model>/<label>-<key>/          step.json · curve.jsonl · delta.safetensors · record.json
    <store>/scores/<same label>/<benchmark>-<key>/      step.json · samples.jsonl · record.json
    <store>/probes/<same label>/<probe>-<key>/          step.json · details.json · record.json

The store is a local folder, NFS, or any fsspec URI (`s3://bucket/folder`). A step writes into a private folder; on a file
system this is renamed into place whole, on an object store the record is uploaded last. So a half-written step is
never taken for done, and of two that computed the same step the first to finish stays.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from lmmcl.errors import UserError, unknown
from lmmcl.models import get_model
from lmmcl.spec.steps import CheckpointStep, Recorded, Step

RECORD = "record.json"
PARTIAL = ".partial"


@dataclass(frozen=True)
class Record:
    """What a finished step left: its fields (results, cost, provenance) and where its files are."""

    path: str
    fields: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]


class Ledger:
    """The records of one store. Cheap to create, picklable; opens its file system when first used."""

    def __init__(self, store: str) -> None:
        self.store = store if "://" in store else str(Path(store).expanduser().resolve())

    def __reduce__(self) -> tuple:
        return (Ledger, (self.store,))

    @cached_property
    def _fs(self) -> fsspec.AbstractFileSystem:
        return fsspec.core.url_to_fs(self.store, use_listings_cache=False)[0]

    @cached_property
    def _root(self) -> str:
        return fsspec.core.url_to_fs(self.store)[1].rstrip("/")

    @property
    def is_local(self) -> bool:
        """Whether the store is a folder of this machine's file system (NFS included)."""
        return isinstance(self._fs, LocalFileSystem)

    def check_writable(self) -> None:
        """Write and remove a probe; raises UserError when the store cannot be written."""
        probe = f"{self._root}/.probe-{uuid.uuid4().hex}"
        try:
            self._fs.makedirs(self._root, exist_ok=True)
            self._fs.pipe_file(probe, b"")
            self._fs.rm_file(probe)
        except (OSError, ValueError) as error:
            raise UserError(
                f"cannot be written ({error}); name another with --store or LMMCL_STORE", file=f"store {self.store}"
            ) from error

    def find(self, step: Step) -> Record | None:
        """The record of `step`, or None when it has not been computed."""
        return self.read(step.path)

    def read(self, path: str) -> Record | None:
        """The record in the folder `path` below the store, or None."""
        try:
            text = self._fs.cat_file(f"{self._root}/{path}/{RECORD}")
        except FileNotFoundError:
            return None
        return Record(path, json.loads(text))

    @contextmanager
    def writing(self, step: Step) -> Iterator[Draft]:
        """A private folder for the files of `step`; `draft.commit(fields)` makes it the step's record.

        Left without a commit (an error, say), everything written is removed.
        """
        folder = self._private_folder(step)
        draft = Draft(self, step, folder)
        try:
            (folder / "step.json").write_text(
                json.dumps({"key": step.key, **step.identity()}, indent=1), encoding="utf-8"
            )
            yield draft
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _private_folder(self, step: Step) -> Path:
        """On the store's own file system where it has one: a rename there is atomic and moves no bytes."""
        owner = f"{step.key}-{socket.gethostname()}-{os.getpid()}-"
        if not self.is_local:
            return Path(tempfile.mkdtemp(prefix=f"lmmcl-{owner}"))
        parent = Path(self._root, PARTIAL)
        parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=owner, dir=parent))

    def publish(self, step: Step, folder: Path) -> Record:
        """Move a private folder that holds a record into its place; when another was first, keep that one."""
        target = f"{self._root}/{step.path}"
        if self.is_local:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            try:
                folder.rename(target)
            except OSError:  # the target is there and not empty: somebody else computed the same step
                if self.find(step) is None:
                    raise
        elif self.find(step) is None:
            files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != RECORD)
            for path in [*files, folder / RECORD]:
                self._fs.put_file(str(path), f"{target}/{path.relative_to(folder).as_posix()}")
        record = self.find(step)
        assert record is not None, f"{target} was published a moment ago"
        return record

    @contextmanager
    def opened(self, path: str, name: str) -> Iterator[Path]:
        """The file `name` of the step in `path` as a local file, downloaded for the time of use where the store is remote."""
        remote = f"{self._root}/{path}/{name}"
        if self.is_local:
            yield Path(remote)
            return
        with tempfile.TemporaryDirectory(prefix="lmmcl-read-") as folder:
            local = Path(folder, name)
            self._fs.get_file(remote, str(local))
            yield local

    def read_lines(self, path: str, name: str) -> list[dict[str, Any]]:
        """The rows of a .jsonl file of the step in `path`; empty when the step has no such file."""
        try:
            text = self._fs.cat_file(f"{self._root}/{path}/{name}").decode()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text.splitlines() if line]

    def keep_text(self, name: str, text: str) -> None:
        """Write a text beside the records, such as why a trial failed; it is no record and may be deleted."""
        path = f"{self._root}/{name}"
        self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        self._fs.pipe_file(path, text.encode())

    def paths(self, kind: str = "checkpoints") -> list[str]:
        """Folders of all finished steps below `checkpoints`, `scores` or `probes`, sorted."""
        found = self._fs.glob(f"{self._root}/{kind}/**/{RECORD}")
        return sorted(str(path).removeprefix(f"{self._root}/").removesuffix(f"/{RECORD}") for path in found)

    def checkpoint(self, wanted: str) -> Recorded:
        """The recorded checkpoint whose key (or a beginning of it), label or folder name is `wanted`.

        Raises UserError with the near ones when there is none, or when several begin like this.
        """
        names = {path.rsplit("/", 1)[1]: path for path in self.paths()}
        hits = [path for name, path in names.items() if name == wanted or name.rsplit("-", 1)[1].startswith(wanted)]
        hits = hits or [path for name, path in names.items() if name.rsplit("-", 1)[0] == wanted]
        if not hits:
            raise UserError(unknown("checkpoint", wanted, names), file=f"store {self.store}")
        if len(hits) > 1:
            near = ", ".join(path.rsplit("/", 1)[1] for path in hits)
            raise UserError(f"{wanted!r} may be any of {near}; give more of the key", file=f"store {self.store}")
        return self._recorded(hits[0])

    def _recorded(self, path: str) -> Recorded:
        record = self.read(path)
        if record is None:
            raise UserError(f"{path} has no record; run its sweep again", file=f"store {self.store}")
        parents = tuple(self._recorded(parent) for parent in record["parents"])
        model = get_model(record.fields.get("model_reference", record["model"]))
        return Recorded(model, record["depth"], record["key"], path, record["label"], parents)

    def being_written(self) -> set[str]:
        """Keys of the steps whose private folder is in the store: being computed now (or killed in the middle)."""
        parent = Path(self._root, PARTIAL)
        if not self.is_local or not parent.is_dir():
            return set()
        return {folder.name.split("-")[0] for folder in parent.iterdir()}

    def remove_abandoned(self) -> int:
        """Delete private folders of this host's processes that are gone (killed in the middle of a step); returns how many."""
        if not self.is_local or not (parent := Path(self._root, PARTIAL)).is_dir():
            return 0
        here = f"-{socket.gethostname()}-"
        dead = [
            folder
            for folder in parent.iterdir()
            if here in folder.name and not _alive(folder.name.split(here)[1].split("-")[0])
        ]
        for folder in dead:
            shutil.rmtree(folder, ignore_errors=True)
        return len(dead)


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@dataclass(frozen=True)
class Draft:
    """A step being written."""

    ledger: Ledger
    step: Step
    folder: Path

    def commit(self, fields: Mapping[str, Any]) -> Record:
        """Write the record last and publish the folder."""
        text = json.dumps({**_about(self.step), **fields}, allow_nan=False)
        partial = self.folder / f"{RECORD}.partial"
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(self.folder / RECORD)
        return self.ledger.publish(self.step, self.folder)


def _about(step: Step) -> dict[str, Any]:
    """What a record says of its step, enough to find the way from it without the sweep."""
    about: dict[str, Any] = {
        "key": step.key,
        "kind": step.kind,
        "label": step.label,
        "parents": [parent.path for parent in step.parents],
    }
    if isinstance(step, CheckpointStep):
        about |= {"model": step.model.name, "model_reference": step.model.reference, "depth": step.depth}
    return about
