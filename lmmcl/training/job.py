"""A stage to train, as it travels to the processes that train it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.ledger import Ledger
from lmmcl.steps import Finetune, Snapshot
from lmmcl.training.distributed.batches import Batches
from lmmcl.training.stage.trainer import Progress


@dataclass(frozen=True)
class Job:
    """A stage to train, to its end or, for a `snapshot`, to that one's update.

    `output` takes the results and `runs` the Trainer's checkpoints; both None in a worker group.
    """

    step: Finetune
    ledger: Ledger
    placement: TrainingPlacement
    batches: Batches
    output: Path | None = None
    runs: Path | None = None
    progress: Progress | None = None
    snapshot: Snapshot | None = None

    @property
    def wanted(self) -> Finetune | Snapshot:
        """What is computed."""
        return self.snapshot or self.step

    @property
    def key(self) -> str:
        """The key of what is computed."""
        return self.wanted.key
