"""What has been computed: a folder a step, with `record.json` in it; the record's existence means that the step is done.

    <store>/checkpoints/<model>/<label>-<key>/          step.json · curve.jsonl · delta.safetensors · record.json
    <store>/scores/<same label>/<benchmark>-<key>/      step.json · samples.jsonl · record.json
    <store>/probes/<same label>/<probe>-<key>/          step.json · details.json · record.json

The store is a local folder, NFS, or any fsspec URI (`s3://bucket/folder`). A step writes into a private folder; on a file
system this is renamed into place whole, on an object store the record is uploaded last, after files in a folder of
their own. So a half-written step is never taken for done, and of two that computed the same step one stays, whole.

Steps of finished trials are packed by checkpoint (`lmmcl.ledger.packs`); what lies in a pack is read as if it lay in its folder.

A record holds size and SHA-256 of each file, and ends with that of itself; one that was cut or changed is none. A file is
held to its record when it is opened; one that differs is reported, and the record quarantined (`record.damaged.json`), so that
the next run computes the step again.
"""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lmmcl.errors import UserError, unknown
from lmmcl.ledger.node import Node
from lmmcl.ledger.owners import is_written, key_of
from lmmcl.ledger.packs.packed_files import PackedFiles
from lmmcl.ledger.pending_record import PendingRecord, private_folder, private_folders, publish, staged_whole
from lmmcl.ledger.reading import lines, opened, recorded_paths
from lmmcl.ledger.record import ASIDE, RECORD, WEIGHTS, Record, decode_record, encode_record
from lmmcl.ledger.side_files import encode
from lmmcl.ledger.stale_files import remove_finished_runs, tidy, tidy_node
from lmmcl.ledger.store import Store, full, local_path, met_no_room
from lmmcl.models import get_model
from lmmcl.steps import Recorded, Step


@dataclass(frozen=True)
class Ledger:
    """The records of one store. Cheap to create, picklable.

    `defers` is the key of a checkpoint that, when it is committed, waits on this node for `upload`.
    """

    store: str
    deferred_key: str = ""

    def __post_init__(self) -> None:
        if (folder := local_path(self.store)) is not None:
            object.__setattr__(self, "store", str(folder.expanduser().resolve()))

    def __reduce__(self) -> tuple[Any, ...]:
        return (Ledger, (self.store, self.deferred_key))

    @cached_property
    def files(self) -> Store:
        """The files of the store."""
        return Store(self.store)

    @cached_property
    def packs(self) -> PackedFiles:
        """What is in packs."""
        return PackedFiles(self.files)

    @cached_property
    def node(self) -> Node:
        """This node's folder for the store, where that is elsewhere."""
        return Node(self.store)

    @property
    def is_local(self) -> bool:
        """Whether the store is a folder of this machine's file system (NFS included)."""
        return self.files.is_local

    def deferring(self, step: Step) -> Ledger:
        """This ledger, where `step` waits on this node for `upload` if the store is elsewhere."""
        return self if self.is_local else Ledger(self.store, deferred_key=step.key)

    def check_writable(self) -> None:
        """Write and remove a probe; raises UserError when the store cannot be written."""
        try:
            system, root = self.files.fs, self.files.root  # without patience: a wrong name is refused at once
            probe = f"{root}/.probe-{uuid.uuid4().hex}"
            system.makedirs(root, exist_ok=True)
            system.pipe_file(probe, b"")
            system.rm_file(probe)
        except ImportError as error:
            raise UserError(
                f"needs an additional package for this kind of store ({error}); for s3:// it is in `pip install lmmcl[s3]`",
                file=f"store {self.store}",
            ) from error
        except Exception as error:  # each object store has errors of its own (no credentials, no such host)
            raise UserError(
                f"cannot be written ({error}); name another with --store or LMMCL_STORE", file=f"store {self.store}"
            ) from error

    def check_exists(self) -> None:
        """Raise UserError when there is no such store; one is made by its first run."""
        if not self.files.exists():
            raise UserError(
                f"Store {self.store} does not exist. Run a sweep to create it, or point --store / LMMCL_STORE to an existing one."
            )

    def find(self, step: Step) -> Record | None:
        """The record of `step`, or None when it has not been computed."""
        return self.read(step.path)

    def has(self, step: Step) -> bool:
        """Whether `step` has been computed."""
        return self.find(step) is not None

    def read(self, path: str) -> Record | None:
        """The record in the folder `path` below the store, or None; one that was cut or changed is none."""
        try:
            record = self._single(path) or self.packs.record(path)
            return self._single(path) if record is None and self.is_local else record  # perhaps unpacked a moment ago
        except ValueError:
            return None

    def _single(self, path: str) -> Record | None:
        try:
            return Record(path, decode_record(self.files.read(f"{path}/{RECORD}")))
        except FileNotFoundError:
            return None

    def has_usable(self, step: Step) -> bool:
        """Whether `step` is recorded and, where it ends in weights, these were not dropped."""
        record = self.find(step)
        return record is not None and record.has_weights

    @contextmanager
    def writing(self, step: Step, folder: Path | None = None) -> Iterator[PendingRecord]:
        """A private folder for the files of `step`; `draft.commit(fields)` makes it the step's record.

        `folder` is one of this node's that holds files of the step already. Left without a commit (an error, say),
        everything written is removed. Raises StoreError when there is no room left to write.
        """
        tidy_node(self)
        folder = folder or private_folder(self, step)
        draft = PendingRecord(self, step, folder)
        try:
            (folder / "step.json").write_text(
                json.dumps({"key": step.key, **step.identity()}, indent=1), encoding="utf-8"
            )
            yield draft
        except Exception as error:
            if met_no_room(error, folder):
                raise full(folder, self.store) from error
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def is_staged(self, step: Step) -> bool:
        """Whether all of `step` waits on this node for `upload`: it was computed, and its upload failed or is to come."""
        if self.is_local:
            return False
        for folder in self.node.rooms(step.key):
            if is_written(folder) is False and staged_whole(folder, step):  # killed while it uploaded
                self.node.stage(step.key, folder)
        return staged_whole(self.node.staged(step.key), step)

    def upload(self, step: Step) -> Record:
        """Record what waits on this node; raises StoreError when the store stays away. It then waits on, for the next try."""
        folder = private_folder(self, step)  # nobody else uploads from it, or stages over it
        try:
            self.node.staged(step.key).rename(folder)
            record = publish(self, step, folder)
        except BaseException:
            if staged_whole(folder, step):
                self.node.stage(step.key, folder)
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # where it became no copy
        return record

    def opened(self, path: str, name: str, *, quarantine: bool = True) -> AbstractContextManager[Path]:
        """The file `name` of the step in `path` as a local file, for the time of the `with`.

        Its content is what was recorded; raises DamagedError when it is not, and puts the record aside (if `quarantine`;
        without, what the store itself holds is looked at, and no copy on this node), or DroppedError when `lmmcl gc` dropped
        it. A file that the step never had is a path where nothing is.
        """
        return opened(self, path, name, quarantine=quarantine)

    def quarantine(self, path: str) -> None:
        """Take a record for none from now on; kept as `record.damaged.json` beside the files."""
        with suppress(FileNotFoundError):  # packed, or another process has seen it too
            self.files.move(f"{path}/{RECORD}", f"{path}/{ASIDE}")
        record = f"{path}/{RECORD}"
        if (
            pack := self.packs.open_for(record)
        ) is not None:  # it stays as it is; what has this beside it counts as none
            try:
                content = pack.read(record)
            except (FileNotFoundError, ValueError):
                content = b""
            self.files.create(f"{path}/{ASIDE}", content)

    def drop_weights(self, path: str) -> int:
        """Delete the weights of the step in `path`; its record stays, and says so. Returns bytes freed."""
        record = self.read(path)
        if record is None:
            return 0
        left = {name: checksum for name, checksum in record.files.items() if not name.endswith(WEIGHTS)}
        gone = sorted({*record.dropped, *record.files} - left.keys())
        when = record.fields.get("dropped", time.time())
        # The record says so first: no file is ever missing without a record of it.
        self.files.write(
            f"{path}/{RECORD}", encode_record({**record.fields, "files": left, "dropped": when, "dropped_files": gone})
        )
        weights = {name: size for name, size in self.sizes(path).items() if name.endswith(WEIGHTS)}
        for name in weights:
            self.files.remove(f"{path}/{name}")
        return sum(weights.values())

    def remove_run(self, key: str) -> None:
        """Delete what the stage `key` kept for being resumed."""
        self.files.remove_folder(f"runs/{key}")

    def sizes(self, path: str) -> dict[str, int]:
        """Bytes of all files below the folder `path`, by their names in it; empty where there is no such folder."""
        return self.files.sizes(path)

    def read_lines(self, path: str, name: str) -> list[dict[str, Any]]:
        """The rows of a .jsonl file of the step in `path`; empty where that is not recorded or has no such file.

        Raises DamagedError when the file is not what was recorded; reading rows puts no record aside.
        """
        return lines(self, path, name)

    def keep_text(self, name: str, text: str) -> None:
        """Write a text beside the records, such as why a trial failed, with its checksum; it may be deleted."""
        self.files.write(name, encode(name, text))

    def paths(self, kind: str = "checkpoints") -> list[str]:
        """Folders of all finished steps below `checkpoints`, `scores` or `probes`, sorted."""
        return recorded_paths(self, kind)

    def checkpoint_paths(self, wanted: str) -> list[str]:
        """Folders of the checkpoints whose key (or a beginning of it), label or folder name is `wanted`."""
        names = {path.rsplit("/", 1)[1]: path for path in self.paths()}
        hits = [path for name, path in names.items() if name == wanted or name.rsplit("-", 1)[1].startswith(wanted)]
        return hits or [path for name, path in names.items() if name.rsplit("-", 1)[0] == wanted]

    def checkpoint(self, wanted: str) -> Recorded:
        """The recorded checkpoint whose key (or a beginning of it), label or folder name is `wanted`.

        Raises UserError with the near ones when there is none, or when several begin like this.
        """
        hits = self.checkpoint_paths(wanted)
        if not hits:
            names = [path.rsplit("/", 1)[1] for path in self.paths()]
            raise UserError(unknown("checkpoint", wanted, names), file=f"store {self.store}")
        if len(hits) > 1:
            near = ", ".join(path.rsplit("/", 1)[1] for path in hits)
            raise UserError(
                f"{wanted!r} is ambiguous: it matches {near}. Give more characters of the key",
                file=f"store {self.store}",
            )
        return self._recorded(hits[0])

    def _recorded(self, path: str) -> Recorded:
        record = self.read(path)
        if record is None:
            raise UserError(f"{path} has no record; run its sweep again", file=f"store {self.store}")
        parents = tuple(self._recorded(parent) for parent in record["parents"])
        model = get_model(record.fields.get("model_reference", record["model"]))
        return Recorded(model, record["depth"], record["key"], path, record["label"], parents)

    def being_written(self) -> set[str]:
        """Keys of the steps whose private folder is in the store, but for those of this machine's processes that are gone."""
        return {key_of(folder) for folder in private_folders(self) if is_written(folder) is not False}

    def remove_abandoned(self) -> None:
        """Delete what killed processes left (see `lmmcl.ledger.stale_files`)."""
        tidy(self)

    def remove_finished_runs(self, steps: Mapping[str, Step]) -> None:
        """Delete what those of `steps` (by key) that are recorded had kept for being resumed."""
        remove_finished_runs(self, steps)
