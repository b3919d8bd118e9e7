"""One `Finetune` step from parent to record, without Ray: in this process, or in all processes that torchrun started.

Where the cluster file asks for workers and torchrun started none, Ray Train places them (see `lmmcl.training.ray_train`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.environment import neutral_environment
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger, PendingRecord, Record
from lmmcl.ledger.provenance import provenance
from lmmcl.steps import Finetune, Snapshot
from lmmcl.training.distributed.strategies import WHOLE, checkpoint_layout
from lmmcl.training.distributed.workers import Workers, get_workers, is_under_torchrun, placed_on
from lmmcl.training.job import Job
from lmmcl.training.recovery.run_folder import remove_run, runs_folder
from lmmcl.training.stage.loop import train_stage
from lmmcl.training.stage_errors import PreemptedError
from lmmcl.weights.swapping import stage_recorded


def finetune(
    step: Finetune | Snapshot,
    ledger: Ledger,
    placement: TrainingPlacement,
    *,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> Record:
    """Train `step` (its parent must be recorded) and record it; for a snapshot, up to that one's update.

    Under torchrun every process calls this, with the same arguments; the first one records. `progress` is called now and then
    with update, updates, updates_per_second and loss; not from a group of Ray Train, which is in other processes. A stage that
    was killed is resumed from its last checkpoint if `placement.save_every` was set.

    Raises UserError for what the user can mend (a batch that cannot be cut, a broken row), StageError when the loss
    or the weights are unusable. Nothing is recorded then.
    """
    started = time.time()
    if placement.workers and not is_under_torchrun():
        return _finetune_in_group(step, ledger, placement)
    workers = get_workers()
    job = replace(Job.of(step, ledger, placed_on(placement, workers)), progress=progress)
    launched = neutral_environment(launched=is_under_torchrun())
    with launched, _resumable(job, workers) as runs, _pending(job, workers) as pending:
        fields = train_stage(job, workers, pending.folder, runs)
        fields |= {"seconds": time.time() - started, "provenance": provenance(started)}
        record = workers.broadcast(pending.commit(fields) if workers.rank == 0 else None)
    assert record is not None, "the first worker recorded it"
    stage_recorded(job.wanted, ledger)
    return record


def _finetune_in_group(step: Finetune | Snapshot, ledger: Ledger, placement: TrainingPlacement) -> Record:
    try:
        from lmmcl.training.ray_train.worker_group import finetune_in_group
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise UserError(
            f"{placement.workers} workers need Ray, which is not installed; set workers: 0, or start the command with torchrun",
            place="training.workers",
        ) from error
    return finetune_in_group(step, ledger, placement)


@contextmanager
def _pending(job: Job, workers: Workers) -> Iterator[PendingRecord]:
    """The record to be written; workers but the first write into a folder of their own, which is deleted."""
    if workers.rank == 0:
        with job.ledger.writing(job.wanted) as pending:
            yield pending
        return
    with TemporaryDirectory(prefix="lmmcl-out-") as folder:
        yield PendingRecord(job.ledger, job.wanted, Path(folder))


@contextmanager
def _resumable(job: Job, workers: Workers) -> Iterator[Path]:
    """A folder for the Trainer's checkpoints, deleted at the end unless the stage can be resumed from it."""
    root = runs_folder(job.ledger, job.wanted)
    layout = checkpoint_layout(job.placement)
    runs = root if layout == WHOLE else root / layout.replace(", ", "-").replace(" ", "-")
    try:
        yield runs
    except BaseException as error:
        if workers.rank == 0 and not (job.placement.save_every or isinstance(error, PreemptedError)):
            remove_run(job.ledger, job.wanted)
        raise
    if workers.rank == 0:
        remove_run(job.ledger, job.wanted)
