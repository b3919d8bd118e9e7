"""What has been computed: a folder a step, with `record.json` in it; the record's existence means that the step is done.

    <store>/checkpoints/<model>/<label>-<key>/          step.json · curve.jsonl · delta.safetensors · record.json
    <store>/scores/<same label>/<benchmark>-<key>/      step.json · samples.jsonl · record.json
    <store>/probes/<same label>/<probe>-<key>/          step.json · details.json · record.json

The store is a local folder, NFS, or any fsspec URI (`s3://bucket/folder`). A step writes into a private folder; on a file
system this is renamed into place whole, on an object store the record is uploaded last, after files in a folder of
their own. So a half-written step is never taken for done, and of two that computed the same step one stays, whole.

A record holds size and SHA-256 of each file. A file is held to them when it is opened; one that differs is told, and its
record put aside (`record.damaged.json`), so that the next run computes the step again.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from lmmcl.errors import UserError, unknown
from lmmcl.models import get_model
from lmmcl.record import RECORD, WEIGHTS, DamagedError, Record, differs, home_of, said_of, step_files
from lmmcl.spec.steps import CheckpointStep, Recorded, Step

PARTIAL = ".partial"
ASIDE = "record.damaged.json"


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
        try:
            probe = f"{self._root}/.probe-{uuid.uuid4().hex}"
            self._fs.makedirs(self._root, exist_ok=True)
            self._fs.pipe_file(probe, b"")
            self._fs.rm_file(probe)
        except ImportError as error:
            raise UserError(
                f"needs a package for its kind of store ({error}); for s3:// it is in `pip install lmmcl[s3]`",
                file=f"store {self.store}",
            ) from error
        except Exception as error:  # each object store has errors of its own (no credentials, no such host)
            raise UserError(
                f"cannot be written ({error}); name another with --store or LMMCL_STORE", file=f"store {self.store}"
            ) from error

    def find(self, step: Step) -> Record | None:
        """The record of `step`, or None when it has not been computed."""
        return self.read(step.path)

    def read(self, path: str) -> Record | None:
        """The record in the folder `path` below the store, or None; one that is no JSON was never finished or is damaged."""
        try:
            return Record(path, json.loads(self._fs.cat_file(f"{self._root}/{path}/{RECORD}")))
        except (FileNotFoundError, ValueError):
            return None

    def holds(self, step: Step) -> bool:
        """Whether `step` is recorded and, where it ends in weights, these were not dropped."""
        record = self.find(step)
        return record is not None and record.has_weights

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
            except OSError:  # the target is there and not empty
                if not self.holds(step):  # damaged, or its weights were dropped
                    self._replace(Path(target), folder)
        elif not self.holds(step):
            at = json.loads((folder / RECORD).read_text(encoding="utf-8"))["at"]
            for path in step_files(folder):
                self._fs.put_file(str(path), f"{target}/{at}/{path.relative_to(folder).as_posix()}")
            self._fs.put_file(str(folder / RECORD), f"{target}/{RECORD}")
        record = self.find(step)
        assert record is not None, f"{target} was published a moment ago"
        return record

    def _replace(self, target: Path, folder: Path) -> None:
        old = folder.with_name(f"{folder.name}-replaced")
        target.rename(old)
        folder.rename(target)
        shutil.rmtree(old, ignore_errors=True)

    @contextmanager
    def opened(self, path: str, name: str, *, put_aside: bool = True) -> Iterator[Path]:
        """The file `name` of the step in `path` as a local file, downloaded for the time of use where the store is remote.

        Its content is what was recorded; raises DamagedError when it is not, and puts the record aside (if `put_aside`).
        A file that the step never had, or whose weights were dropped, is a path where nothing is.
        """
        home, inner = home_of(path, name)
        record = self.read(home)
        said = record.files.get(inner) if record else None
        if self.is_local:
            local = Path(self._root, home, inner)
            if said:
                self._verify(home, inner, local, said, put_aside)
            yield local
            return
        with tempfile.TemporaryDirectory(prefix="lmmcl-read-") as folder:
            local = Path(folder, inner)
            local.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                self._fs.get_file(f"{self._root}/{record.folder if record else home}/{inner}", str(local))
            if said:
                self._verify(home, inner, local, said, put_aside)
            yield local

    def _verify(self, path: str, name: str, local: Path, said: Mapping[str, Any], put_aside: bool) -> None:
        """Hold a file to what its record says of it."""
        why = differs(local, said)
        if why is None:
            return
        remedy = ""
        if put_aside:
            self.put_aside(path)
            remedy = "; its record was put aside, and the next run of its sweep computes the step again"
        raise DamagedError(f"{why}{remedy}", file=f"{self.store}/{path}/{name}")

    def put_aside(self, path: str) -> None:
        """Take a record for none from now on; kept as `record.damaged.json` beside the files."""
        with suppress(FileNotFoundError):  # another process has seen it too
            self._fs.mv(f"{self._root}/{path}/{RECORD}", f"{self._root}/{path}/{ASIDE}")

    def drop_weights(self, path: str) -> int:
        """Delete the weights of the step in `path`; its record stays, and says so. Returns bytes freed."""
        record = self.read(path)
        if record is None:
            return 0
        left = {name: said for name, said in record.files.items() if not name.endswith(WEIGHTS)}
        fields = {**record.fields, "files": left, "dropped": record.fields.get("dropped", time.time())}
        self._rewrite(path, fields)  # said first: a file is never missing without a word
        weights = {name: size for name, size in self.sizes(path).items() if name.endswith(WEIGHTS)}
        for name in weights:
            self._fs.rm_file(f"{self._root}/{path}/{name}")
        return sum(weights.values())

    def _rewrite(self, path: str, fields: Mapping[str, Any]) -> None:
        """Put another record in the place of one, at once: an upload is atomic, and so is a rename."""
        record = f"{self._root}/{path}/{RECORD}"
        written = f"{record}.partial" if self.is_local else record
        self._fs.pipe_file(written, json.dumps(fields, allow_nan=False).encode())
        if self.is_local:
            Path(written).replace(record)

    def remove_run(self, key: str) -> None:
        """Delete what the stage `key` kept for being resumed."""
        folder = f"{self._root}/runs/{key}"
        if self._fs.exists(folder):
            self._fs.rm(folder, recursive=True)

    def sizes(self, path: str) -> dict[str, int]:
        """Bytes of all files below the folder `path`, by their names in it; empty where there is no such folder."""
        root = f"{self._root}/{path}"
        found = self._fs.find(root, detail=True)
        return {name.removeprefix(f"{root}/"): about["size"] or 0 for name, about in found.items()}

    def read_lines(self, path: str, name: str) -> list[dict[str, Any]]:
        """The rows of a .jsonl file of the step in `path`; empty when the step has no such file."""
        record = None if self.is_local else self.read(path)
        try:
            text = self._fs.cat_file(f"{self._root}/{record.folder if record else path}/{name}").decode()
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
        about = {
            **_about(self.step),
            "files": {path.relative_to(self.folder).as_posix(): said_of(path) for path in step_files(self.folder)},
        }
        if not self.ledger.is_local:
            about["at"] = uuid.uuid4().hex[:12]  # no upload ever writes over another's files
        text = json.dumps({**about, **fields}, allow_nan=False)
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
