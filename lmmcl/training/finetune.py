"""One `Finetune` step from parent to record: a Ray Train run whose name is the step's key.

Without workers Ray Train's local mode runs the loop right here, with or without a Ray cluster, and costs nothing; with
workers a group of processes shares the global batch.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray.train import Result

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.errors import UserError, explain
from lmmcl.ledger import Draft, Ledger, Record
from lmmcl.ledger.provenance import provenance
from lmmcl.steps import Finetune, Snapshot
from lmmcl.training.distributed.batches import cut_batches, worker_counts
from lmmcl.training.distributed.group import finished, fit
from lmmcl.training.job import Job
from lmmcl.training.recovery.checksums import SEAL
from lmmcl.training.recovery.node_output import Left, is_gone, left_in
from lmmcl.training.stage_errors import PreemptedError

log = logging.getLogger(__name__)


def finetune(
    step: Finetune | Snapshot,
    ledger: Ledger,
    placement: TrainingPlacement,
    *,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> Record:
    """Train `step` (its parent must be recorded) and record it; for a snapshot, up to that one's update.

    `progress` is called now and then with update, updates, updates_per_second and loss; only without workers, since a
    worker group is in other processes. A stage that was killed goes on from its last checkpoint if `placement.save_every` was
    set; one that a group had trained to its end, but that nobody recorded, is recorded.

    Raises UserError for what the user can mend (a batch that cannot be cut, a broken row), StageError when the loss
    or the weights are unusable. Nothing is recorded then.
    """
    started = time.time()
    stage, snapshot = (step.finetune, step) if isinstance(step, Snapshot) else (step, None)
    job = Job(stage, ledger, placement, cut_batches(stage.training, placement), snapshot=snapshot)
    worker_counts(stage.training, placement)
    resumable = True
    record = None
    try:
        with ledger.writing(step) as draft:
            if placement.workers and (late := finished(job)):
                record = _commit_late(job, late, draft, started)
            if record is None:
                resumable = bool(placement.save_every)
                result = _group(job) if placement.workers else _here(job, draft, progress)
                resumable = True  # where only recording it fails, it need not be trained again
                record = _commit(job, result, draft, started)
        resumable = False
    except PreemptedError:
        resumable = True  # it has saved where it is
        raise
    finally:
        if not resumable:
            _remove_run(ledger, step)
    return record


def _group(job: Job) -> Result:
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # relative paths of data mean the same in workers
    return fit(job, f"{job.ledger.store}/runs")


def _here(job: Job, draft: Draft, progress: Callable[[dict[str, Any]], None] | None) -> Result:
    runs = _local_runs(job.ledger, job.wanted)
    with _quiet():
        return fit(replace(job, output=draft.folder, runs=runs, progress=progress), str(runs.parent))


def _commit_late(job: Job, result: Result, draft: Draft, started: float) -> Record | None:
    """Record what a group had trained to its end in a try before; None where the node that held it has gone."""
    try:
        record = _commit(job, result, draft, started)
    except Exception as error:
        if not is_gone(error):
            raise
        log.warning("%s was trained, but the node that held it has gone: %s", job.step.label, explain(error))
        return None
    log.info("%s had been trained and not recorded: it is recorded now", job.step.label)
    return record


def _commit(job: Job, result: Result, draft: Draft, started: float) -> Record:
    """Record what was trained: from here, or from the node on which a group left it."""
    assert result.metrics is not None, "the loop's last report carries the fields of the record"
    seconds = max(time.time() - started, result.metrics["seconds"])  # of training, if that was in a try before
    fields = {**result.metrics, "seconds": seconds, "provenance": provenance(started)}
    left = _fetch(result, draft) if job.placement.workers else None  # else it is in the draft already
    return left.commit(job.wanted, job.ledger, fields, job.placement.max_failures) if left else draft.commit(fields)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray Train from telling, in local mode, that it is in local mode and what was reported."""
    logger = logging.getLogger("ray.train")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _fetch(result: Result, draft: Draft) -> Left | None:
    """Bring what rank 0 reported into the draft; or tell on which node it left that."""
    assert result.checkpoint is not None, "rank 0 ends with a checkpoint"
    with result.checkpoint.as_directory() as folder:
        left = left_in(Path(folder))
        if left is None:
            shutil.copytree(folder, draft.folder, ignore=shutil.ignore_patterns(f"{SEAL}*"), dirs_exist_ok=True)
        return left


def _local_runs(ledger: Ledger, step: Finetune | Snapshot) -> Path:
    """Where the Trainer's own checkpoints go in local mode: beside the store, or in this node's folder for a remote one."""
    return Path(ledger.store if ledger.is_local else ledger.node.folder, "runs", step.key)


def _remove_run(ledger: Ledger, step: Finetune | Snapshot) -> None:
    """What a resumed stage would have needed is not needed any more. Its failure hides no error of the stage."""
    shutil.rmtree(_local_runs(ledger, step), ignore_errors=True)
    if not ledger.is_local:
        try:
            ledger.remove_run(step.key)
        except (UserError, OSError) as error:
            log.warning("%s: what it kept for being resumed could not be removed: %s", step.label, error)
