"""Where a stage goes on from after a fault: checkpoints of the Trainer, handed to Ray Train and found again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ray.train
from transformers import TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerControl, TrainerState

from lmmcl.training.trainer import update_of, whole_checkpoint


def resume_point(runs: Path, *, before: int | None = None) -> Path | None:
    """The Trainer checkpoint to go on from: the group's newest (Ray Train), or what a killed process left in `runs`.

    Of those before the update `before` alone: training always makes one update more, and must end at that one.
    """
    reported = ray.train.get_checkpoint()
    if reported is not None:
        folder = Path(reported.to_directory(runs / "reported"))
        if not (folder / TRAINER_STATE_NAME).is_file():
            return None  # of a run that came to its end but was not recorded
        update = json.loads((folder / TRAINER_STATE_NAME).read_text(encoding="utf-8"))["global_step"]
        folder.rename(runs / f"checkpoint-{update}")
    left = [folder for folder in runs.glob("checkpoint-*") if before is None or update_of(folder) < before]
    return whole_checkpoint(left)


class ReportCheckpoint(TrainerCallback):
    """Hands each Trainer checkpoint to Ray Train, which gives it to the group that takes over after a lost worker.

    `every_worker`: each has a part of it, and Ray Train puts their files into one folder.
    """

    def __init__(self, *, every_worker: bool) -> None:
        self._every_worker = every_worker

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
        mine = state.is_world_process_zero or self._every_worker
        ray.train.report(
            {"update": state.global_step}, checkpoint=ray.train.Checkpoint.from_directory(folder) if mine else None
        )
