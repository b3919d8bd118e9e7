"""Checkpoints inside a stage are sealed: what a machine that went down, or a full disk, left half is not gone on from."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import TrainerControl, TrainerState

from lmmcl.ledger.record import differs, said_of
from lmmcl.training.stage.trainer import update_of

SEAL = "seal-"

log = logging.getLogger(__name__)


class SealCheckpoint(TrainerCallback):
    """Says in each Trainer checkpoint, as the last of it, what its files are; of a group, each worker for its own part."""

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
        if folder.is_dir():
            seal(folder, args.process_index)


def seal(folder: Path, worker: int = 0) -> None:
    """Write bytes and SHA-256 of all files of a checkpoint beside them."""
    files = {path.relative_to(folder).as_posix(): said_of(path) for path in _files(folder)}
    (folder / f"{SEAL}{worker}.json").write_text(json.dumps(files), encoding="utf-8")


def newest_whole(folders: Iterable[Path]) -> Path | None:
    """The newest checkpoint that is what was written; those that are not are passed over with a word."""
    for folder in sorted(folders, key=update_of, reverse=True):
        if (fault := fault_of(folder)) is None:
            return folder
        log.warning("%s is passed over: %s", folder, fault)
    return None


def fault_of(folder: Path) -> str | None:
    """In what a checkpoint differs from what its seals say, or None."""
    seals = list(folder.glob(f"{SEAL}*.json"))
    if not seals:
        return "it was not written to its end"
    try:
        said = {name: about for path in seals for name, about in json.loads(path.read_text(encoding="utf-8")).items()}
    except ValueError:
        return "its seal is cut"
    faults = (f"{name} {why}" for name, about in said.items() if (why := differs(folder / name, about)))
    return next(faults, None)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(SEAL))
