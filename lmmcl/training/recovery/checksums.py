"""Checksums of checkpoints inside a stage: what a machine that went down, or a full disk, left half written is not resumed from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import TrainerControl, TrainerState

from lmmcl.ledger.record import file_checksum, find_mismatch

CHECKSUMS = "seal-"
"""How the files of checksums begin, one for each worker."""


class WriteChecksums(TrainerCallback):
    """Writes checksums as the last file of each Trainer checkpoint; in a group, each worker those of its own part."""

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
        if folder.is_dir():
            write_checksums(folder, args.process_index)


def write_checksums(folder: Path, worker: int = 0) -> None:
    """Write bytes and SHA-256 of all files of a checkpoint beside them."""
    files = {path.relative_to(folder).as_posix(): file_checksum(path) for path in _files(folder)}
    (folder / f"{CHECKSUMS}{worker}.json").write_text(json.dumps(files), encoding="utf-8")


def find_corruption(folder: Path) -> str | None:
    """In what a checkpoint differs from its checksums, or None."""
    written = list(folder.glob(f"{CHECKSUMS}*.json"))
    if not written:
        return "it is incomplete"
    try:
        expected = {
            name: checksum
            for path in written
            for name, checksum in json.loads(path.read_text(encoding="utf-8")).items()
        }
    except ValueError:
        return "its checksums are truncated"
    faults = (f"{name} {why}" for name, checksum in expected.items() if (why := find_mismatch(folder / name, checksum)))
    return next(faults, None)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(CHECKSUMS))
