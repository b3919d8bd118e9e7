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
from pathlib import Path
from typing import Any

from ray.train import (
    CheckpointConfig,
    FailureConfig,
    Result,
    RunConfig,
    ScalingConfig,
    WorkerGroupError,
)
from ray.train.torch import TorchTrainer

from lmmcl.errors import UserError
from lmmcl.ledger import Draft, Ledger, Record
from lmmcl.ledger.provenance import provenance
from lmmcl.spec.cluster import TrainingPlacement
from lmmcl.spec.steps import Finetune, Snapshot
from lmmcl.training.collate import cut_batches
from lmmcl.training.handover import Left, left_in
from lmmcl.training.loop import Job, train_loop
from lmmcl.training.retries import PreemptedError, Verdict, judge_group, pause_before

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
    worker group is in other processes. A stage that was killed goes on from its last checkpoint if `placement.save_every` was set.

    Raises UserError for what the user can mend (a batch that cannot be cut, a broken row), StageError when the loss
    or the weights are unusable. Nothing is recorded then.
    """
    started = time.time()
    stage, snapshot = (step.finetune, step) if isinstance(step, Snapshot) else (step, None)
    batches = cut_batches(stage.training, placement)
    resumable = bool(placement.save_every)
    left: Left | None = None
    try:
        with ledger.writing(step) as draft:
            if placement.workers:
                os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # relative paths of data mean the same in workers
                result = _fit(Job(stage, ledger, placement, batches, snapshot=snapshot), f"{ledger.store}/runs")
                left = _fetch(result, draft)
            else:
                runs = _local_runs(ledger, step)
                with _quiet():
                    job = Job(stage, ledger, placement, batches, draft.folder, runs, progress, snapshot)
                    result = _fit(job, str(runs.parent))
            assert result.metrics is not None, "the loop's last report carries the fields of the record"
            fields = {**result.metrics, "seconds": time.time() - started, "provenance": provenance(started)}
            record = left.commit(step, ledger, fields, placement.max_failures) if left else draft.commit(fields)
        resumable = False
    except PreemptedError:
        resumable = True  # it has saved where it is
        raise
    finally:
        if not resumable:
            _remove_run(ledger, step)
    return record


def _fit(job: Job, storage: str) -> Result:
    """Train to the end: a group that fails goes on from its last checkpoint, as often as its failure deserves.

    Ray Train's own counter would give a row that cannot be read as many tries as a lost worker.
    """
    failures = 0
    while True:
        try:
            return _trainer(job, storage).fit()
        except WorkerGroupError as error:
            verdict, reason = judge_group(error)
            failures += verdict is Verdict.BROKE
            if verdict is Verdict.FINAL or failures > job.placement.max_failures:
                if isinstance(reason, UserError):
                    raise reason from error
                raise
            log.warning("%s: the worker group is started again: %s", job.step.label, reason)
            time.sleep(pause_before(max(1, failures)))


def _trainer(job: Job, storage: str) -> TorchTrainer:
    placement = job.placement
    resources = {"CPU": placement.cpus_per_worker, **placement.resources_per_worker}
    if placement.gpus_per_worker:
        resources["GPU"] = placement.gpus_per_worker
    return TorchTrainer(
        train_loop,
        train_loop_config={"job": job},
        scaling_config=ScalingConfig(
            num_workers=placement.workers,
            use_gpu=bool(placement.workers and placement.gpus_per_worker),
            resources_per_worker=resources if placement.workers else None,
        ),
        run_config=RunConfig(
            name=job.key,
            storage_path=storage,
            failure_config=FailureConfig(max_failures=0),  # see _fit; nodes that are drained do not count
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )


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
            shutil.copytree(folder, draft.folder, dirs_exist_ok=True)
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
