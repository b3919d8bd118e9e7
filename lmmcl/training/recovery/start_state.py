"""What a mitigation worked out before the first update, kept beside the checkpoints of a stage until the stage is done.

LwF asks the whole stage of its teacher, EWC measures what matters to earlier skills: a stage that is killed and resumed would do
so each time again.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import torch

from lmmcl.methods.combination import CombinedTraining
from lmmcl.methods.mitigation import StageContext, TrainingMitigation
from lmmcl.training.recovery.checksums import find_corruption, write_checksums
from lmmcl.training.recovery.timed_saves import BYTES_PER_SECOND, SHARE

FOLDER, FILE = "start-state", "state.pt"
LEAST_SECONDS = 1.0
"""What takes less is not worth a file."""

log = logging.getLogger(__name__)


def start_state(mitigation: TrainingMitigation, context: StageContext, runs: Path, *, alone: bool) -> Any:
    """What `mitigation.start` returns: read where an earlier try of the stage has kept it, else computed.

    Kept are only plain tensors of a process `alone`, where writing them costs at most a small share of what computing took.
    """
    if isinstance(mitigation, CombinedTraining):
        folder = runs / FOLDER
        return [_start_state(member, context, folder / member.name, alone=alone) for member in mitigation.members]
    return _start_state(mitigation, context, runs / FOLDER, alone=alone)


def _start_state(mitigation: TrainingMitigation, context: StageContext, folder: Path, *, alone: bool) -> Any:
    if not (mitigation.keeps_state and alone):
        return mitigation.start(context)
    if (folder / FILE).is_file():
        if (corruption := find_corruption(folder)) is None:
            return torch.load(folder / FILE, weights_only=True)
        log.warning("%s is skipped: %s", folder, corruption)
    begun = time.perf_counter()
    state = mitigation.start(context)
    seconds = time.perf_counter() - begun
    if seconds >= LEAST_SECONDS and bytes_in(state) / BYTES_PER_SECOND <= SHARE * seconds:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{FILE}.partial"
        torch.save(state, partial)
        partial.replace(folder / FILE)
        write_checksums(folder)
    return state


def bytes_in(state: Any) -> int:
    """Bytes of all tensors in dictionaries, lists and tuples."""
    if isinstance(state, torch.Tensor):
        return state.nbytes
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return sum(map(bytes_in, values))
