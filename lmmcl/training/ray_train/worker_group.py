"""A worker group of Ray Train: its size, its restarts, and what an earlier one trained that nobody recorded."""

from __future__ import annotations

import logging
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import ray
from ray.train import (
    CheckpointConfig,
    ControllerError,
    FailureConfig,
    Result,
    RunConfig,
    ScalingConfig,
    WorkerGroupError,
)
from ray.train.torch import TorchTrainer

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.errors import UserError, explain
from lmmcl.ledger import Ledger, PendingRecord, Record
from lmmcl.ledger.provenance import provenance
from lmmcl.private_api.ray_private import damaged_run_error, no_place_errors, reports_file
from lmmcl.steps import Finetune, Snapshot
from lmmcl.training.distributed.batches import cut_batches, worker_counts
from lmmcl.training.job import Job
from lmmcl.training.ray_train.node_output import RemoteOutput, is_lost, read_remote_output
from lmmcl.training.ray_train.retry_policy import PAUSES, RetryPolicy, classify_group_error
from lmmcl.training.ray_train.worker import train_loop
from lmmcl.training.recovery.checksums import CHECKSUMS, find_corruption
from lmmcl.training.recovery.run_folder import remove_run
from lmmcl.training.stage_errors import PreemptedError

log = logging.getLogger(__name__)


def finetune_in_group(step: Finetune | Snapshot, ledger: Ledger, placement: TrainingPlacement) -> Record:
    """`lmmcl.training.finetune.finetune` in a worker group that Ray Train places: a run whose name is the step's key.

    What an earlier group had trained to its end, and nobody recorded, is recorded.
    """
    started = time.time()
    job = Job.of(step, ledger, placement)
    resumable = True
    record = None
    try:
        with ledger.writing(step) as pending:
            if earlier := finished(job):
                record = _commit_earlier(job, earlier, pending, started)
            if record is None:
                resumable = bool(placement.save_every)
                os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # relative paths of data mean the same in workers
                result = fit(job, f"{ledger.store}/runs")
                resumable = True  # where only recording it fails, it need not be trained again
                record = _commit(job, result, pending, started)
        resumable = False
    except PreemptedError:
        resumable = True  # it has saved where it is
        raise
    finally:
        if not resumable:
            remove_run(ledger, step)
    return record


def fit(job: Job, storage: str) -> Result:
    """Train to the end: a group that fails resumes from its last checkpoint, as often as the retry policy of its error allows.

    Ray Train's own counter would give a row that cannot be read as many tries as a lost worker.
    """
    failures = 0
    while True:
        try:
            return _trainer(sized(job), storage).fit()
        except ControllerError as error:
            if job.placement.min_workers is None or not isinstance(error.controller_failure, no_place_errors()):
                raise
            log.info("%s: %s", job.step.label, explain(error.controller_failure))
            time.sleep(PAUSES.pause(1))  # there may be room for fewer now
        except WorkerGroupError as error:
            policy, reason = classify_group_error(error)
            failures += policy is RetryPolicy.LIMITED
            if policy is RetryPolicy.NEVER or failures > job.placement.max_failures:
                if isinstance(reason, UserError):
                    raise reason from error
                raise
            log.warning("%s: the worker group is started again: %s", job.step.label, reason)
            time.sleep(PAUSES.pause(failures))


def sized(job: Job) -> Job:
    """The job for as many workers as there is room for now, where its placement leaves that open.

    Where there is room for too few, all are asked for: what waits makes an autoscaler grow. The global batch stays.
    """
    placement = job.placement
    if placement.min_workers is None:
        return job
    room = _room(placement)
    fitting = [number for number in worker_counts(job.step.training, placement) if number <= room]
    number = max(fitting, default=placement.workers)
    if number < placement.workers:
        log.info("%s: trains with %d of %d workers", job.step.label, number, placement.workers)
    placement = placement.model_copy(update={"workers": number})
    return replace(job, placement=placement, batches=cut_batches(job.step.training, placement))


def _room(placement: TrainingPlacement) -> int:
    """How many workers the free part of the cluster holds, counted over all of it."""
    free = ray.available_resources()
    needs = worker_resources(placement)
    return min(int(free.get(name, 0) / amount + 1e-6) for name, amount in needs.items() if amount)


def worker_resources(placement: TrainingPlacement) -> dict[str, float]:
    """What one worker takes of its node, in Ray's words."""
    needs = {"CPU": placement.cpus_per_worker, **placement.resources_per_worker}
    return {**needs, "GPU": placement.gpus_per_worker} if placement.gpus_per_worker else needs


def _trainer(job: Job, storage: str) -> TorchTrainer:
    placement = job.placement
    return TorchTrainer(
        train_loop,
        train_loop_config={"job": job},
        scaling_config=ScalingConfig(
            num_workers=placement.workers,
            use_gpu=bool(placement.workers and placement.gpus_per_worker),
            resources_per_worker=worker_resources(placement) if placement.workers else None,
        ),
        run_config=RunConfig(
            name=job.key,
            storage_path=storage,
            # See `fit`; nodes that are drained do not count. A group that finds no place waits, or is made smaller there.
            failure_config=FailureConfig(  # type: ignore[call-arg] # typed as Ray Train's first version
                max_failures=0,
                controller_failure_limit=-1 if placement.min_workers is None else 0,
            ),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )


def finished(job: Job) -> Result | None:
    """What a group handed over at its end, where it was not recorded: the waiting process was killed, or the upload failed.

    What was kept for being resumed and cannot be read (Ray Train writes its list in place) is removed with a warning.
    """
    ledger = job.ledger
    if not ledger.files.matches(f"runs/{job.key}/{reports_file()}"):
        return None
    try:
        result = Result.from_path(f"{ledger.store}/runs/{job.key}")
    except damaged_run_error() as error:
        log.warning("%s is trained from the start; its resume checkpoint is damaged: %s", job.step.label, error)
        ledger.remove_run(job.key)
        return None
    if not result.metrics or "proof" not in result.metrics or result.checkpoint is None:
        return None
    with result.checkpoint.as_directory() as folder:
        corruption = find_corruption(Path(folder))
    if corruption is not None:
        log.warning("%s was trained, but the output of its worker group is incomplete: %s", job.step.label, corruption)
        return None
    return result


def _commit_earlier(job: Job, result: Result, pending: PendingRecord, started: float) -> Record | None:
    """Record what an earlier group had trained to its end; None where the node that held it is lost."""
    try:
        record = _commit(job, result, pending, started)
    except Exception as error:
        if not is_lost(error):
            raise
        log.warning("%s was trained, but the node that held it is lost: %s", job.step.label, explain(error))
        return None
    log.info("%s had been trained but not recorded; recorded now", job.step.label)
    return record


def _commit(job: Job, result: Result, pending: PendingRecord, started: float) -> Record:
    """Record what was trained: from here, or from the node on which the group left it."""
    assert result.metrics is not None, "the loop's last report carries the fields of the record"
    seconds = max(time.time() - started, result.metrics["seconds"])  # of training, if that was in a try before
    fields = {**result.metrics, "seconds": seconds, "provenance": provenance(started)}
    remote = _fetch(result, pending)
    return (
        remote.commit(job.wanted, job.ledger, fields, job.placement.max_failures) if remote else pending.commit(fields)
    )


def _fetch(result: Result, pending: PendingRecord) -> RemoteOutput | None:
    """Copy what rank 0 reported to where it is recorded from; or return on which node it was left."""
    assert result.checkpoint is not None, "rank 0 ends with a checkpoint"
    with result.checkpoint.as_directory() as folder:
        remote = read_remote_output(Path(folder))
        if remote is None:
            ignored = shutil.ignore_patterns(f"{CHECKSUMS}*")
            shutil.copytree(folder, pending.folder, ignore=ignored, dirs_exist_ok=True)
        return remote
