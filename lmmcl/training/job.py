"""A stage to train, as it travels to the processes that train it."""

from __future__ import annotations

from dataclasses import dataclass

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.ledger import Ledger
from lmmcl.steps import Finetune, Snapshot
from lmmcl.training.distributed.batches import Batches, cut_batches, worker_counts
from lmmcl.training.stage.trainer import Progress


@dataclass(frozen=True)
class Job:
    """A stage to train, to its end or, for a `snapshot`, to that one's update.

    `progress` is called now and then by a stage that trains in the caller's process.
    """

    step: Finetune
    ledger: Ledger
    placement: TrainingPlacement
    batches: Batches
    progress: Progress | None = None
    snapshot: Snapshot | None = None

    @classmethod
    def of(cls, wanted: Finetune | Snapshot, ledger: Ledger, placement: TrainingPlacement) -> Job:
        """The job of a stage or of a snapshot; raises UserError for a global batch that these workers cannot share."""
        step, snapshot = (wanted.finetune, wanted) if isinstance(wanted, Snapshot) else (wanted, None)
        worker_counts(step.training, placement)
        return cls(step, ledger, placement, cut_batches(step.training, placement), snapshot=snapshot)

    @property
    def wanted(self) -> Finetune | Snapshot:
        """What is computed."""
        return self.snapshot or self.step

    @property
    def key(self) -> str:
        """The key of what is computed."""
        return self.wanted.key
