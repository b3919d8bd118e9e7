"""Where a stage goes on from after a fault: checkpoints of the Trainer, handed to Ray Train and found again."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray.train
from ray.train.collective import broadcast_from_rank_zero
from transformers import TrainerCallback
from transformers.trainer_callback import TrainerControl, TrainerState

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.training.distributed.strategies import layout
from lmmcl.training.recovery.checksums import fault_of, newest_whole
from lmmcl.training.stage.trainer import update_of

UPDATE, LAYOUT = "update", "layout"
"""What is told with a Trainer checkpoint; what a group hands over at its end comes with the fields of a record."""
PATIENCE = 60.0
"""Seconds after which what Ray Train knows of is taken as it is."""

log = logging.getLogger(__name__)


@contextmanager
def resume_point(runs: Path, placement: TrainingPlacement, *, before: int | None = None) -> Iterator[Path | None]:
    """The Trainer checkpoint to go on from: the group's newest (Ray Train), or what a killed process left in `runs`.

    Of those before the update `before` alone: training always makes one update more, and must end at that one. A newer one
    that does not fit (what a group handed over at its end, what another strategy divided) or is not whole is passed over.
    """
    first = ray.train.get_context().get_world_rank() == 0
    for reported in reversed(ray.train.get_all_reported_checkpoints(timeout_s=PATIENCE)):
        told = reported.metrics
        if told.get(LAYOUT) != layout(placement) or (before is not None and told[UPDATE] >= before):
            continue
        # No copy of a shared folder, else one for all workers of a node.
        with reported.checkpoint.as_directory() as folder:
            # One worker judges: all must go on from the same one, and each would have to read the parts of all.
            fault = broadcast_from_rank_zero(fault_of(Path(folder)) if first else None)
            if fault is None:
                point = runs / f"from-{told[UPDATE]}"
                point.symlink_to(folder)
                yield point
                return
            log.warning("%s is passed over: %s", reported.checkpoint.path, fault)
    yield newest_whole([folder for folder in runs.glob("checkpoint-*") if before is None or update_of(folder) < before])


class ReportCheckpoint(TrainerCallback):
    """Hands each Trainer checkpoint to Ray Train, which gives it to the group that takes over after a lost worker.

    Each worker has a part of it, of the model or only the state of its random numbers, and Ray Train puts their files into
    one folder. What was handed over is deleted here: the Trainer would do so for the first worker alone.
    """

    def __init__(self, placement: TrainingPlacement) -> None:
        self._layout = layout(placement)

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        ray.train.report(
            {UPDATE: state.global_step, LAYOUT: self._layout},
            checkpoint=ray.train.Checkpoint.from_directory(Path(args.output_dir, f"checkpoint-{state.global_step}")),
            delete_local_checkpoint_after_upload=True,
        )
