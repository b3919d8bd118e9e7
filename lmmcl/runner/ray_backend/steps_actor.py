"""Steps on a Ray cluster: one small actor holds the scheduler of a sweep and starts a Ray task for each computation.

A fine-tune with workers is a task that holds next to nothing and waits for the worker group that Ray Train places; one
without (`workers: 0`) trains in the task's own process. Ray keeps the processes of finished tasks, so on a laptop the
imports are paid once per core, not once per stage; what takes GPUs has workers that keep them (see `gpu_workers`).

The actor may be lost: Ray starts it again, what it had started ends with it, the drivers' questions are asked again, and
the ledger says what is left to do.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lmmcl.config.cluster import Cluster
from lmmcl.errors import UserError, explain
from lmmcl.ledger import Ledger, Record
from lmmcl.runner.execute import compute, upload_checkpoint
from lmmcl.runner.in_flight import ConcurrentScheduler
from lmmcl.runner.ray_backend.gpu_workers import GpuWorkers, Share
from lmmcl.runner.ray_backend.processes import ProcessLocation, log_end, terminate, this_process
from lmmcl.steps import Checkpoint, CheckpointStep, Finetune, Merge, ScoringStep, Snapshot, Step
from lmmcl.training.ray_train.retry_policy import (
    PAUSES,
    RetryPolicy,
    classify_error,
    is_store_unavailable,
    root_of,
)
from lmmcl.training.stage_errors import PreemptedError

NOTE_SECONDS = 0.5
"""Between two notes on a step, and between two looks at all of them: as often as a person can read."""
QUESTIONS = 10_000
"""Drivers that may wait for the actor at once."""

log = logging.getLogger(__name__)


class StepLostError(RuntimeError):
    """A step whose process died each time that it was tried."""


def start_steps_actor(ledger: Ledger, cluster: Cluster) -> Any:
    """The actor of a sweep, on the nodes that the cluster file keeps for drivers; it lives as long as the returned handle."""
    options: dict[str, Any] = {"num_cpus": 0, "resources": cluster.driver.resources, "max_concurrency": QUESTIONS}
    return ray.remote(StepsActor).options(**options, max_restarts=-1, max_task_retries=-1).remote(ledger, cluster)


class Load(NamedTuple):
    """How many drivers wait for records, and how many computations run or have room to be found for them."""

    waiting: int
    computing: int


class StepsActor:
    """Holds the scheduler, and the latest note on each step that is running."""

    def __init__(self, ledger: Ledger, cluster: Cluster) -> None:
        self._executor = RayExecutor(ledger, cluster)
        self._scheduler = ConcurrentScheduler(ledger, cluster, self._executor)
        self._notes: dict[str, dict[str, Any]] = {}
        self._waiting = 0

    async def records(self, steps: Sequence[ScoringStep]) -> list[Record]:
        """See `ConcurrentScheduler.records`."""
        self._waiting += 1
        try:
            return await self._scheduler.records(steps)
        finally:
            self._waiting -= 1

    async def load(self) -> Load:
        """How much there is to do now."""
        return Load(self._waiting, self._executor.computing)

    async def prefetch(self, step: Checkpoint) -> None:
        """See `ConcurrentScheduler.prefetch`."""
        self._scheduler.prefetch(step)

    async def prefetch_scores(self, steps: Sequence[ScoringStep]) -> None:
        """See `ConcurrentScheduler.prefetch_scores`."""
        self._scheduler.prefetch_scores(steps)

    async def note(self, key: str, shown: dict[str, Any]) -> None:
        """Keep what is to be shown of a running step; a note that comes after its end is dropped."""
        if key in self._scheduler.keys:
            self._notes[key] = shown
        if "update" in shown:
            self._executor.unplaced.discard(key)

    async def started(self, key: str, where: ProcessLocation) -> None:
        """Keep which process computes a step."""
        self._executor.where[key] = where

    async def save(self, seconds: float) -> None:
        """See `RayExecutor.save`."""
        await self._executor.save(seconds)

    async def running(self) -> dict[str, dict[str, Any]]:
        """The latest note of each step in flight, by key; empty for one that waits for its turn."""
        keys = self._scheduler.keys
        self._notes = {key: self._notes[key] for key in keys if key in self._notes}  # of steps that are done no more
        return {key: self._notes.get(key, {}) for key in keys}


class RayExecutor:
    """Computes each step in a Ray task with the resources that the cluster file asks for; tries again what may pass."""

    def __init__(self, ledger: Ledger, cluster: Cluster) -> None:
        self._ledger, self._cluster = ledger, cluster
        self.where: dict[str, ProcessLocation] = {}
        self.computing = 0
        self.unplaced: set[str] = set()
        """Stages whose worker groups may still wait for GPUs."""
        self._gpu_workers = GpuWorkers(wanted=lambda: bool(self.unplaced))
        self._saveable: set[str] = set()
        self._ending = False

    async def save(self, seconds: float) -> None:
        """The run ends: begin nothing more, and let stages that train in their steps' own processes save where they are."""
        self._ending = True
        saving = {key for key in self._saveable if key in self.where}
        for key in saving:
            await terminate(self.where[key])
        end = time.monotonic() + seconds
        while saving & self._saveable and time.monotonic() < end:
            await asyncio.sleep(0.1)

    async def __call__(self, steps: Sequence[Any]) -> None:
        """Compute one checkpoint, or several scores of one: see `Compute` in `lmmcl.runner.scheduler`."""
        self.computing += 1
        try:
            if isinstance(steps[0], CheckpointStep):
                await self._compute_checkpoint(steps[0])
            else:
                place = self._cluster.evaluation
                await self._try(_compute_scores, _options(place.cpus, place.gpus, place.resources), list(steps))
        finally:
            self.computing -= 1

    async def _compute_checkpoint(self, step: Any) -> None:
        place = self._cluster.training
        trains = isinstance(step, Finetune | Snapshot)
        trains_here = trains and place.workers == 0
        if trains_here or (isinstance(step, Merge) and step.rule.needs_model):
            options = _options(place.cpus_per_worker, place.gpus_per_worker, place.resources_per_worker)
        elif trains:
            options = _options(0, 0, self._cluster.driver.resources)
        else:  # reads and writes weights: not on a head that has no CPUs to give
            options = _options(self._cluster.evaluation.cpus, 0, self._cluster.evaluation.resources)
        if trains_here:
            self._saveable.add(step.key)
        elif trains and place.gpus_per_worker:
            self.unplaced.add(step.key)
            self._gpu_workers.end_idle()
        try:
            await self._try(_compute_checkpoint, options, [step])
        finally:
            self._saveable.discard(step.key)
            self.unplaced.discard(step.key)

    async def _try(self, body: Callable[..., Any], options: dict[str, Any], steps: Sequence[Step]) -> None:
        """Run `body` until it succeeds, or its failure is one that another try will not change.

        Each try leases the steps, and so leaves out those that were recorded meanwhile.
        """
        broken = 0
        node: str | None = None
        while True:
            if self._ending:
                raise PreemptedError("the run is ending")
            try:
                if node is None:
                    node = await self._call(body, options, steps, new_process=broken > 0)
                    self.where.pop(steps[0].key, None)
                if node:
                    # Its weights wait there for their upload; the GPU is free for other work.
                    there = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
                    await _upload.options(scheduling_strategy=there).remote(steps[0], self._ledger, self._cluster)
                return
            except Exception as error:  # noqa: BLE001 - each kind is judged
                # Not to be signalled any more: the number of a process that went may be given again.
                where = self.where.pop(steps[0].key, None)
                policy = classify_error(error)
                broken += policy is RetryPolicy.LIMITED
                if self._ending or policy is RetryPolicy.NEVER or broken > self._cluster.training.max_failures:
                    raise await self._reason(error, steps[0], broken, where) from None
                log.warning("%s failed and is retried: %s", steps[0].label, explain(error))
                if not is_store_unavailable(error):  # else what waits on its node is uploaded again, not computed again
                    node = None
                await asyncio.sleep(PAUSES.pause(broken))

    async def _call(
        self, body: Callable[..., Any], options: dict[str, Any], steps: Sequence[Step], *, new_process: bool
    ) -> Any:
        """What `body` returns of `steps`, on a worker with GPUs where `options` asks for some, else in a Ray task."""
        arguments = (steps, self._ledger, self._cluster, ray.get_runtime_context().current_actor)
        if not options["num_gpus"]:
            task = _task(body).options(**options, **(_new_process() if new_process else {}))
            return await task.remote(*arguments)
        first = steps[0]
        leaves = first.checkpoint.key if isinstance(first, ScoringStep) else first.key
        parents = {parent.key for parent in first.parents}
        return await self._gpu_workers.call(self._share(options), body, *arguments, near=parents, leaves=leaves)

    def _share(self, options: dict[str, Any]) -> Share:
        """What a worker holds: CPUs for stages and evaluations, where they take as many GPUs, so that one follows another on it."""
        train, evaluate = self._cluster.training, self._cluster.evaluation
        cpus, gpus, resources = options["num_cpus"], options["num_gpus"], options["resources"]
        if (
            train.workers == 0
            and train.gpus_per_worker == evaluate.gpus
            and train.resources_per_worker == evaluate.resources
        ):
            cpus = max(train.cpus_per_worker, evaluate.cpus)
        return Share(cpus, gpus, tuple(sorted(resources.items())))

    async def _reason(self, error: Exception, step: Step, tries: int, where: ProcessLocation | None) -> Exception:
        """What to tell of a failure for good: an error of our code as it is, a process that died with the end of its log."""
        root = root_of(error)
        if isinstance(root, UserError):
            return root
        if not isinstance(root, RayError):
            return error
        lines = await log_end(where)
        message = f"{step.label} ({step.key}) was tried {tries} times; the last time: {str(root).strip()}"
        return StepLostError(message + (f"\nthe end of its log:\n{lines}" if lines else ""))


def _options(cpus: float, gpus: float, resources: dict[str, float]) -> dict[str, Any]:
    return {"num_cpus": cpus, "num_gpus": gpus, "resources": resources, "max_retries": 0}


@cache  # Ray would keep another copy of the function for each
def _task(body: Callable[..., Any]) -> Any:
    return ray.remote(body)


def _new_process() -> dict[str, Any]:
    """Options that keep a task out of processes that Ray has: what broke one (memory that ran out in an import) may stay in it."""
    return {"runtime_env": {"env_vars": {"LMMCL_TRY": uuid.uuid4().hex}}}


def _compute_checkpoint(steps: Sequence[Checkpoint], ledger: Ledger, cluster: Cluster, actor: Any) -> str | None:
    """Returns the node on which the step waits for its upload, if it does."""
    (step,) = steps
    actor.started.remote(step.key, this_process())
    waits = compute(steps, ledger.deferring(step), cluster, _Notes(actor))
    return ray.get_runtime_context().get_node_id() if waits else None


@ray.remote(num_cpus=0, max_retries=0)
def _upload(step: Any, ledger: Ledger, cluster: Cluster) -> None:
    upload_checkpoint(step, ledger, cluster)


def _compute_scores(steps: Sequence[ScoringStep], ledger: Ledger, cluster: Cluster, actor: Any) -> None:
    actor.started.remote(steps[0].key, this_process())
    compute(steps, ledger, cluster, _Notes(actor))


class _Notes:
    """Passes notes to the actor, not too often."""

    def __init__(self, actor: Any) -> None:
        self._actor, self._last = actor, 0.0

    def __call__(self, key: str, shown: dict[str, Any]) -> None:
        if time.monotonic() - self._last >= NOTE_SECONDS:
            self._last = time.monotonic()
            self._actor.note.remote(key, shown)


class RemoteSteps:
    """Records from the cluster."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def ensure_all(self, steps: Sequence[ScoringStep]) -> list[Record]:
        """See `Steps.ensure_all`."""
        records: list[Record] = ray.get(self._actor.records.remote(list(steps)))
        return records

    def prefetch(self, step: Checkpoint) -> None:
        """See `Steps.prefetch`."""
        self._actor.prefetch.remote(step)
