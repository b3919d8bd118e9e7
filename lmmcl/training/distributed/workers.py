"""The processes that train one stage together, as each of them sees them: this process alone, or those that torchrun started.

No Ray here: a worker of a group of Ray Train sees its group through `lmmcl.training.ray_train.worker`.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar, cast

import torch
from torch import distributed
from transformers import TrainerCallback
from transformers.trainer import OPTIMIZER_NAME, TRAINER_STATE_NAME

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.errors import UserError

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SavedCheckpoint:
    """A checkpoint of the Trainer inside a stage; `opened` gives its folder on this machine."""

    update: int
    name: str
    opened: Callable[[], AbstractContextManager[Path]]


class Workers:
    """This process alone. Subclasses agree with others on what each method returns: every worker calls it at the same point."""

    rank = 0
    size = 1
    ends_when_preempted = True
    """Whether a preempted stage ends itself with an error, once it has saved; else whoever started the group ends it."""

    saves_by_time = True
    """Whether the stage saves every few seconds besides `save_every`, and keeps what it worked out before the first update."""

    def broadcast(self, value: T) -> T:
        """What the first worker has."""
        return value

    def agree(self, work: Callable[[], T]) -> T:
        """What `work` returns in the first worker, which alone does it."""
        return cast(T, self.broadcast(work() if self.rank == 0 else None))

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set in any worker."""
        return flag

    def is_preempted(self, noticed: bool) -> bool:
        """Whether the stage is to save and end; `noticed` says that this process got the signal."""
        return noticed

    def callbacks(self, placement: TrainingPlacement) -> list[TrainerCallback]:
        """Further callbacks of the Trainer, called once a checkpoint has its checksums."""
        return []

    def saved_checkpoints(self, runs: Path, placement: TrainingPlacement) -> Iterable[SavedCheckpoint]:
        """Checkpoints that fit how the model is divided now, the newest first; `runs` is the Trainer's own folder.

        What a group of Ray Train reported lies beside what a process of its own saved, and is resumed from by either.
        """
        return newest_first(runs, self.agree(lambda: [*list_alone(runs), *_list_group(runs)]))


def list_alone(runs: Path) -> list[tuple[int, str]]:
    """Update and name of each checkpoint that a process of its own, or torchrun's processes, saved in this folder."""
    return [(update_of(folder), folder.name) for folder in runs.glob("checkpoint-*")]


def _list_group(runs: Path) -> list[tuple[int, str]]:
    """The same of those under Ray Train's names that hold a whole model and its optimizer, not parts of a divided one."""
    listed = []
    for folder in runs.glob("checkpoint_*"):
        if (folder / OPTIMIZER_NAME).is_file():
            try:
                state = json.loads((folder / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
                listed.append((int(state["global_step"]), folder.name))
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning("%s is skipped: its %s cannot be read: %s", folder, TRAINER_STATE_NAME, error)
    return listed


def newest_first(runs: Path, listed: Iterable[tuple[int, str]]) -> list[SavedCheckpoint]:
    """Checkpoints of a folder by update and name."""
    return [
        SavedCheckpoint(update, name, partial(_opened, runs / name, update))
        for update, name in sorted(listed, reverse=True)
    ]


@contextmanager
def _opened(folder: Path, update: int) -> Iterator[Path]:
    """The folder, under a name that ends in its update, as the Trainer wants it."""
    if folder.name.endswith(f"-{update}"):
        yield folder
        return
    with TemporaryDirectory(prefix="lmmcl-from-") as links:
        link = Path(links, f"checkpoint-{update}")
        link.symlink_to(folder.resolve())
        yield link


class TorchrunWorkers(Workers):
    """The processes that torchrun started: all of them call the same functions, and the first one writes."""

    saves_by_time = False  # each has a clock of its own

    def __init__(self) -> None:
        self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])

    def broadcast(self, value: T) -> T:
        """See `Workers.broadcast`."""
        box = [value]
        distributed.broadcast_object_list(box, src=0, device=_device())
        return box[0]

    def agree(self, work: Callable[[], T]) -> T:
        """See `Workers.agree`. Before the processes have joined, each does it for itself."""
        return super().agree(work) if distributed.is_initialized() else work()

    def any(self, flag: bool) -> bool:
        """See `Workers.any`."""
        value = torch.tensor(float(flag), device=_device())
        distributed.all_reduce(value, op=distributed.ReduceOp.MAX)
        return bool(value.item())

    def is_preempted(self, noticed: bool) -> bool:
        """See `Workers.is_preempted`."""
        return self.any(noticed)


def is_under_torchrun() -> bool:
    """Whether torchrun started this process, with others or alone."""
    return distributed.is_available() and distributed.is_torchelastic_launched()


def get_workers() -> Workers:
    """Those of this process."""
    return TorchrunWorkers() if is_under_torchrun() else Workers()


def placed_on(placement: TrainingPlacement, workers: Workers) -> TrainingPlacement:
    """The placement for these workers: under torchrun as many as that started; raises UserError where another number is set."""
    if not isinstance(workers, TorchrunWorkers):
        return placement
    if placement.workers not in (0, workers.size):
        raise UserError(
            f"torchrun started {workers.size} processes, and the cluster file asks for {placement.workers} workers; set "
            f"workers: {workers.size}, or leave it out",
            place="training.workers",
        )
    return placement.model_copy(update={"workers": workers.size, "min_workers": None})


def update_of(folder: Path | str) -> int:
    """After which update a Trainer checkpoint was written, by its folder's name."""
    return int(Path(folder).name.rsplit("-", 1)[1])


def _device() -> torch.device:
    """Where a collective call finds its tensors: NCCL knows those of GPUs alone."""
    return torch.device("cuda" if distributed.get_backend() == "nccl" else "cpu")
