"""A step being written: a private folder, a record as the last file in it, and its way to the place where it is found.

On a file system the folder is renamed into place whole. To an object store the files are uploaded into a folder of their own
and the record after them, at once or, where a GPU would wait for the network, later from this node's folder (`Ledger.upload`).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmmcl.ledger.interface import LedgerAccess
from lmmcl.ledger.owners import private_name
from lmmcl.ledger.provenance import computed_by
from lmmcl.ledger.record import (
    RECORD,
    WEIGHTS,
    Record,
    decode_record,
    encode_record,
    file_checksum,
    find_mismatch,
    step_files,
)
from lmmcl.steps import CheckpointStep, Step, alike

PARTIAL = ".partial"


@dataclass(frozen=True)
class PendingRecord:
    """A step being written."""

    ledger: LedgerAccess
    step: Step
    folder: Path

    def commit(self, fields: Mapping[str, Any]) -> Record:
        """Write the record last and publish the folder, or let it wait for its upload where the ledger defers uploads."""
        about = {
            **_about(self.step),
            "files": {
                path.relative_to(self.folder).as_posix(): file_checksum(path) for path in step_files(self.folder)
            },
        }
        if not self.ledger.is_local:
            about["at"] = uuid.uuid4().hex[:12]  # no upload ever writes over another's files
        record = {**about, **fields}
        partial = self.folder / f"{RECORD}.partial"
        with partial.open("wb") as file:
            file.write(encode_record(record))
            file.flush()
            os.fsync(file.fileno())
        partial.rename(self.folder / RECORD)
        if self.ledger.is_local or not isinstance(self.step, CheckpointStep):
            return publish(self.ledger, self.step, self.folder)
        self.ledger.node.stage(self.step.key, self.folder)  # what was computed outlives an upload that fails
        return (
            Record(self.step.path, record)
            if self.ledger.deferred_key == self.step.key
            else self.ledger.upload(self.step)
        )


def private_folder(ledger: LedgerAccess, step: Step) -> Path:
    """A new folder on the file system where the step will lie: a rename there is atomic and moves no bytes."""
    name = private_name(step.key)
    if not ledger.is_local:
        return ledger.node.make_temp_dir(f"lmmcl-{name}")
    parent = ledger.files.at(PARTIAL)
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=name, dir=parent))


def private_folders(ledger: LedgerAccess) -> list[Path]:
    """Those in the store; none where it is elsewhere."""
    if not ledger.is_local or not (parent := ledger.files.at(PARTIAL)).is_dir():
        return []
    return list(parent.iterdir())


def publish(ledger: LedgerAccess, step: Step, folder: Path) -> Record:
    """Move a private folder that holds a record into its place; when another was first, keep that one."""
    if ledger.is_local:
        if not (ledger.packs.holds(step.path) and ledger.has_usable(step)):
            _rename(ledger, step, folder)
    elif not ledger.has_usable(step):
        _upload(ledger, step, folder)
    record = ledger.find(step)
    assert record is not None, f"{step.path} was published a moment ago"
    return record


def _upload(ledger: LedgerAccess, step: Step, folder: Path) -> None:
    """The files, then the record if there is none: children may build on the weights of the first writer."""
    at, name = _record_in(folder)["at"], f"{step.path}/{RECORD}"
    for path in step_files(folder):
        ledger.files.put(path, f"{step.path}/{at}/{path.relative_to(folder).as_posix()}")
    content = (folder / RECORD).read_bytes()
    if not ledger.files.create(name, content):
        if ledger.has_usable(step):
            ledger.files.remove_folder(f"{step.path}/{at}")
            return
        ledger.files.write(name, content)  # it was truncated, or its weights were dropped
    if any(folder.glob(f"*{WEIGHTS}")):
        ledger.node.keep(at, folder)


def _rename(ledger: LedgerAccess, step: Step, folder: Path) -> None:
    target = ledger.files.at(step.path)
    try:
        _rename_into(target, folder)
    except OSError:  # the target is there and not empty
        if not ledger.has_usable(step):  # damaged, or its weights were dropped
            old = folder.with_name(f"{folder.name}-replaced")
            target.rename(old)
            folder.rename(target)
            shutil.rmtree(old, ignore_errors=True)


def _rename_into(target: Path, folder: Path) -> None:
    while True:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.rename(target)
            return
        except FileNotFoundError:
            if not folder.exists():
                raise  # else packing deleted the parent, which was empty, a moment ago


def staged_whole(folder: Path, step: Step) -> bool:
    """Whether `folder` holds all of `step`, as its record says."""
    try:
        record = Record(step.path, _record_in(folder))
    except (FileNotFoundError, ValueError):
        return False
    return record["key"] == step.key and all(
        find_mismatch(folder / name, checksum) is None for name, checksum in record.files.items()
    )


def _record_in(folder: Path) -> dict[str, Any]:
    return decode_record((folder / RECORD).read_bytes())


def _about(step: Step) -> dict[str, Any]:
    """What a record says of its step, enough to find the way from it without the sweep."""
    about: dict[str, Any] = {
        "key": step.key,
        "kind": step.kind,
        "label": step.label,
        "alike": alike(step),
        "run": computed_by(),
        "parents": [parent.path for parent in step.parents],
    }
    if isinstance(step, CheckpointStep):
        about |= {"model": step.model.name, "model_reference": step.model.reference, "depth": step.depth}
    return about
