"""What each worker of a group of Ray Train runs: the stage, with its checkpoints reported to Ray Train."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import ray.train
import torch
from ray.train.collective import broadcast_from_rank_zero
from transformers import TrainerCallback
from transformers.trainer_callback import TrainerControl, TrainerState

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.environment import neutral_environment
from lmmcl.models.kernels.onednn_linear import onednn_linears
from lmmcl.training.distributed.strategies import WHOLE, checkpoint_layout
from lmmcl.training.distributed.workers import SavedCheckpoint, Workers, list_alone, newest_first
from lmmcl.training.job import Job
from lmmcl.training.ray_train.node_output import output_folder
from lmmcl.training.recovery.checksums import write_checksums
from lmmcl.training.recovery.run_folder import runs_folder
from lmmcl.training.stage.loop import train_stage

UPDATE, LAYOUT = "update", "layout"
"""What is reported with a Trainer checkpoint; what a group hands over at its end comes with the fields of a record."""
REPORTS_TIMEOUT = 60.0
"""Seconds after which what Ray Train knows of is taken as it is."""

T = TypeVar("T")


def train_loop(config: dict[str, Job]) -> None:
    """Run by Ray Train in each worker; rank 0 reports a folder with the delta and the curve, and the record's fields."""
    job = config["job"]
    torch.set_num_threads(max(1, int(job.placement.cpus_per_worker)))
    workers = RayWorkers(runs_folder(job.ledger, job.wanted) if job.ledger.is_local else None)
    first = workers.rank == 0
    with (
        neutral_environment(launched=True),  # Ray Train says in torchrun's variables which worker this is
        onednn_linears(),
        output_folder(job.ledger, job.key, first=first) as (output, reported),
        tempfile.TemporaryDirectory(prefix="lmmcl-run-") as runs,
    ):
        fields = train_stage(job, workers, output, Path(runs))
        if first:
            write_checksums(reported)  # a later run may be the one that records it
        ray.train.report(fields, checkpoint=ray.train.Checkpoint.from_directory(reported) if first else None)


class RayWorkers(Workers):
    """A worker group of Ray Train, which keeps the group's checkpoints and starts it again after a lost worker."""

    saves_by_time = False  # each has a clock of its own

    ends_when_preempted = False

    def __init__(self, alone: Path | None = None) -> None:
        """`alone` is where a process of its own may have saved the stage before, at a place that all workers can read."""
        self._alone = alone
        context = ray.train.get_context()
        self.rank, self.size = context.get_world_rank(), context.get_world_size()

    def broadcast(self, value: T) -> T:
        """See `Workers.broadcast`."""
        return broadcast_from_rank_zero(value)

    def is_preempted(self, noticed: bool) -> bool:
        """Whether Ray Train says that a node of the group is drained: a collective call."""
        return ray.train.get_preemption_info() is not None

    def callbacks(self, placement: TrainingPlacement) -> list[TrainerCallback]:
        """See `Workers.callbacks`."""
        return [ReportCheckpoint(placement)]

    def saved_checkpoints(self, runs: Path, placement: TrainingPlacement) -> list[SavedCheckpoint]:
        """Those that were reported with the layout of now, and what a process of its own saved of a model that is not divided.

        Not what a group handed over at its end.
        """
        layout = checkpoint_layout(placement)
        saved = []
        for reported in reversed(ray.train.get_all_reported_checkpoints(timeout_s=REPORTS_TIMEOUT)):
            if reported.metrics.get(LAYOUT) == layout:
                update, checkpoint = reported.metrics[UPDATE], reported.checkpoint
                opened = partial(_opened, checkpoint, runs / f"from-{update}")
                saved.append(SavedCheckpoint(update, checkpoint.path, opened))
        if (alone := self._alone) and layout == WHOLE:
            saved += newest_first(alone, self.agree(lambda: list_alone(alone)))
        return sorted(saved, key=lambda checkpoint: checkpoint.update, reverse=True)


@contextmanager
def _opened(checkpoint: ray.train.Checkpoint, point: Path) -> Iterator[Path]:
    """A reported checkpoint as `point`, whose name ends in its update, as the Trainer wants it.

    No copy of a shared folder, else one for all workers of a node.
    """
    with checkpoint.as_directory() as folder:
        point.symlink_to(folder)
        yield point


class ReportCheckpoint(TrainerCallback):
    """Hands each Trainer checkpoint to Ray Train, which gives it to the group that takes over after a lost worker.

    Each worker has a part of it, of the model or only the state of its random numbers, and Ray Train puts their files into
    one folder. What was handed over is deleted here: the Trainer would do so for the first worker alone.
    """

    def __init__(self, placement: TrainingPlacement) -> None:
        self._layout = checkpoint_layout(placement)

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        ray.train.report(
            {UPDATE: state.global_step, LAYOUT: self._layout},
            checkpoint=ray.train.Checkpoint.from_directory(Path(args.output_dir, f"checkpoint-{state.global_step}")),
            delete_local_checkpoint_after_upload=True,
        )
