"""A step being written: a private folder, a record as the last file in it, and its way to the place where it is found.

On a file system the folder is renamed into place whole. To an object store the files are uploaded into a folder of their own
and the record after them, at once or, where a GPU would wait for the network, later from this node's folder (`Ledger.upload`).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmcl.ledger.claims import alive
from lmmcl.ledger.record import RECORD, WEIGHTS, Record, differs, said_of, step_files
from lmmcl.spec.steps import CheckpointStep, Step

if TYPE_CHECKING:
    from lmmcl.ledger import Ledger

PARTIAL = ".partial"


@dataclass(frozen=True)
class Draft:
    """A step being written."""

    ledger: Ledger
    step: Step
    folder: Path

    def commit(self, fields: Mapping[str, Any]) -> Record:
        """Write the record last and publish the folder, or let it wait for its upload where the ledger defers uploads."""
        about = {
            **_about(self.step),
            "files": {path.relative_to(self.folder).as_posix(): said_of(path) for path in step_files(self.folder)},
        }
        if not self.ledger.is_local:
            about["at"] = uuid.uuid4().hex[:12]  # no upload ever writes over another's files
        record = {**about, **fields}
        partial = self.folder / f"{RECORD}.partial"
        with partial.open("w", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False))
            file.flush()
            os.fsync(file.fileno())
        partial.rename(self.folder / RECORD)
        if self.ledger.is_local or not isinstance(self.step, CheckpointStep):
            return publish(self.ledger, self.step, self.folder)
        self.ledger.node.stage(self.step.key, self.folder)  # what was computed outlives an upload that fails
        return Record(self.step.path, record) if self.ledger.defers == self.step.key else self.ledger.upload(self.step)


def private_folder(ledger: Ledger, step: Step) -> Path:
    """A new folder on the file system where the step will lie: a rename there is atomic and moves no bytes."""
    owner = f"{step.key}-{socket.gethostname()}-{os.getpid()}-"
    if not ledger.is_local:
        return ledger.node.room(f"lmmcl-{owner}")
    parent = ledger.files.at(PARTIAL)
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=owner, dir=parent))


def private_folders(ledger: Ledger) -> list[Path]:
    """Those in the store; none where it is elsewhere."""
    if not ledger.is_local or not (parent := ledger.files.at(PARTIAL)).is_dir():
        return []
    return list(parent.iterdir())


def is_abandoned(folder: Path) -> bool:
    """Whether a private folder is of a process of this host that is gone."""
    here = f"-{socket.gethostname()}-"
    return here in folder.name and not alive(int(folder.name.split(here)[1].split("-")[0]))


def publish(ledger: Ledger, step: Step, folder: Path) -> Record:
    """Move a private folder that holds a record into its place; when another was first, keep that one."""
    if ledger.is_local:
        _rename(ledger, step, folder)
    elif not ledger.holds(step):
        at = _record_in(folder)["at"]
        for path in step_files(folder):
            ledger.files.put(path, f"{step.path}/{at}/{path.relative_to(folder).as_posix()}")
        ledger.files.put(folder / RECORD, f"{step.path}/{RECORD}")
        if any(folder.glob(f"*{WEIGHTS}")):
            ledger.node.keep(at, folder)
    record = ledger.find(step)
    assert record is not None, f"{step.path} was published a moment ago"
    return record


def _rename(ledger: Ledger, step: Step, folder: Path) -> None:
    target = ledger.files.at(step.path)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.rename(target)
    except OSError:  # the target is there and not empty
        if not ledger.holds(step):  # damaged, or its weights were dropped
            old = folder.with_name(f"{folder.name}-replaced")
            target.rename(old)
            folder.rename(target)
            shutil.rmtree(old, ignore_errors=True)


def staged_whole(folder: Path, step: Step) -> bool:
    """Whether `folder` holds all of `step`, as its record says."""
    try:
        record = Record(step.path, _record_in(folder))
    except (FileNotFoundError, ValueError):
        return False
    return record["key"] == step.key and all(
        differs(folder / name, said) is None for name, said in record.files.items()
    )


def _record_in(folder: Path) -> dict[str, Any]:
    return json.loads((folder / RECORD).read_text(encoding="utf-8"))


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
