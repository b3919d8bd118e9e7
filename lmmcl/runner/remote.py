"""Steps on a Ray cluster: one small actor holds the flights of a sweep and starts a Ray task for each computation.

A fine-tune with workers is a task that holds next to nothing and waits for the worker group that Ray Train places; one
without (`workers: 0`) trains in the task's own process. Ray keeps the processes of finished tasks, so on a laptop the
imports are paid once per core, not once per stage.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import ray

from lmmcl.ledger import Ledger, Record
from lmmcl.runner.execute import compute_checkpoint, compute_scores
from lmmcl.runner.flights import Flights
from lmmcl.spec.cluster import Cluster
from lmmcl.spec.steps import Asked, Checkpoint, Finetune, Merge

WAITING_CPUS = 0.001
"""What the driver of a trial asks for where there is nothing but CPUs: Tune accepts no 0."""
NOTE_SECONDS = 0.5


class StepsActor:
    """Holds the flights, the latest note on each step that is running, and why trials failed."""

    def __init__(self, ledger: Ledger, cluster: Cluster) -> None:
        self._flights = Flights(ledger, RayLauncher(ledger, cluster))
        self._notes: dict[str, dict[str, Any]] = {}
        self._failures: dict[str, tuple[str, str]] = {}

    async def ensure_scores(self, steps: Sequence[Asked]) -> list[Record]:
        """See `Flights.ensure_scores`."""
        return await self._flights.ensure_scores(steps)

    async def note(self, key: str, shown: dict[str, Any]) -> None:
        """Keep what is to be shown of a running step."""
        self._notes[key] = shown

    async def fail(self, trial_key: str, why: str, details: str) -> None:
        """Keep why a trial ended without its last stage: one line, and the traceback."""
        self._failures[trial_key] = (why, details)

    async def failures(self) -> dict[str, tuple[str, str]]:
        """Reasons and tracebacks by trial key."""
        return self._failures

    async def running(self) -> dict[str, dict[str, Any]]:
        """The latest note of each step in flight, by key; empty for one that waits for its turn."""
        return {key: self._notes.get(key, {}) for key in self._flights.keys}


class RayLauncher:
    """Computes each step in a Ray task with the resources that the cluster file asks for."""

    def __init__(self, ledger: Ledger, cluster: Cluster) -> None:
        self._ledger, self._cluster = ledger, cluster

    async def checkpoint(self, step: Checkpoint) -> None:
        place = self._cluster.training
        trains_here = isinstance(step, Finetune) and place.workers == 0
        if trains_here or (isinstance(step, Merge) and step.rule.needs_model):
            options = _options(place.cpus_per_worker, place.gpus_per_worker, place.resources_per_worker)
        elif isinstance(step, Finetune):
            options = _options(0, 0, self._cluster.driver.resources)
        else:
            options = _options(self._cluster.evaluation.cpus, 0, self._cluster.driver.resources)
        task = _compute_checkpoint.options(**options, max_retries=place.max_failures)
        await task.remote(step, self._ledger, self._cluster, ray.get_runtime_context().current_actor)

    async def scores(self, steps: Sequence[Asked]) -> None:
        place = self._cluster.evaluation
        task = _compute_scores.options(**_options(place.cpus, place.gpus, place.resources), max_retries=2)
        await task.remote(steps, self._ledger, self._cluster, ray.get_runtime_context().current_actor)


def _options(cpus: float, gpus: float, resources: dict[str, float]) -> dict[str, Any]:
    return {"num_cpus": cpus, "num_gpus": gpus, "resources": resources}


@ray.remote
def _compute_checkpoint(step: Checkpoint, ledger: Ledger, cluster: Cluster, actor: Any) -> None:
    compute_checkpoint(step, ledger, cluster, _Notes(actor))


@ray.remote
def _compute_scores(steps: Sequence[Asked], ledger: Ledger, cluster: Cluster, actor: Any) -> None:
    compute_scores(steps, ledger, cluster, _Notes(actor))


class _Notes:
    """Passes notes to the actor, not more often than a person can read."""

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

    def ensure_all(self, steps: Sequence[Asked]) -> list[Record]:
        """See `Steps.ensure_all`."""
        return ray.get(self._actor.ensure_scores.remote(list(steps)))
