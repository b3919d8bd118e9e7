"""Steps on a Ray cluster: one small actor holds the flights of a sweep and starts a Ray task for each computation.

A fine-tune with workers is a task that holds next to nothing and waits for the worker group that Ray Train places; one
without (`workers: 0`) trains in the task's own process. Ray keeps the processes of finished tasks, so on a laptop the
imports are paid once per core, not once per stage.

The actor may be lost: Ray starts it again, what it had started ends with it, the drivers' questions are asked again, and
the ledger says what is left to do.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lmmcl.errors import UserError, explain
from lmmcl.ledger import Ledger, Record
from lmmcl.runner.execute import compute_checkpoint, compute_scores
from lmmcl.runner.flights import Flights
from lmmcl.spec.cluster import Cluster
from lmmcl.spec.steps import Asked, Checkpoint, Finetune, Merge, Snapshot, Step
from lmmcl.training.retries import Verdict, judge, pause_before, root_of

WAITING_CPUS = 0.001
"""What the driver of a trial asks for where there is nothing but CPUs: Tune accepts no 0."""
NOTE_SECONDS = 0.5
LOG_LINES = 15
QUESTIONS = 10_000
"""Drivers that may wait for the actor at once."""

log = logging.getLogger(__name__)


class StepLostError(RuntimeError):
    """A step whose process died each time that it was tried."""


def start_steps_actor(ledger: Ledger, cluster: Cluster) -> Any:
    """The actor of a sweep, on the nodes that the cluster file keeps for drivers; it lives as long as the returned handle."""
    options: dict[str, Any] = {"num_cpus": 0, "resources": cluster.driver.resources, "max_concurrency": QUESTIONS}
    return ray.remote(StepsActor).options(**options, max_restarts=-1, max_task_retries=-1).remote(ledger, cluster)


class StepsActor:
    """Holds the flights, and the latest note on each step that is running."""

    def __init__(self, ledger: Ledger, cluster: Cluster) -> None:
        self._launcher = RayLauncher(ledger, cluster)
        self._flights = Flights(ledger, self._launcher)
        self._notes: dict[str, dict[str, Any]] = {}

    async def ensure_scores(self, steps: Sequence[Asked]) -> list[Record]:
        """See `Flights.ensure_scores`."""
        return await self._flights.ensure_scores(steps)

    async def begin(self, step: Checkpoint) -> None:
        """See `Flights.begin`."""
        self._flights.begin(step)

    async def note(self, key: str, shown: dict[str, Any]) -> None:
        """Keep what is to be shown of a running step."""
        self._notes[key] = shown

    async def started(self, key: str, node: str, file: str) -> None:
        """Keep where the process that computes a step writes its log."""
        self._launcher.logs[key] = (node, file)

    async def running(self) -> dict[str, dict[str, Any]]:
        """The latest note of each step in flight, by key; empty for one that waits for its turn."""
        return {key: self._notes.get(key, {}) for key in self._flights.keys}


class RayLauncher:
    """Computes each step in a Ray task with the resources that the cluster file asks for; tries again what may pass."""

    def __init__(self, ledger: Ledger, cluster: Cluster) -> None:
        self._ledger, self._cluster = ledger, cluster
        self.logs: dict[str, tuple[str, str]] = {}

    async def checkpoint(self, step: Checkpoint) -> None:
        place = self._cluster.training
        trains = isinstance(step, Finetune | Snapshot)
        trains_here = trains and place.workers == 0
        if trains_here or (isinstance(step, Merge) and step.rule.needs_model):
            options = _options(place.cpus_per_worker, place.gpus_per_worker, place.resources_per_worker)
        elif trains:
            options = _options(0, 0, self._cluster.driver.resources)
        else:  # reads and writes weights: not on a head that has no CPUs to give
            options = _options(self._cluster.evaluation.cpus, 0, self._cluster.evaluation.resources)
        await self._try(_compute_checkpoint.options(**options), [step])

    async def scores(self, steps: Sequence[Asked]) -> None:
        place = self._cluster.evaluation
        await self._try(_compute_scores.options(**_options(place.cpus, place.gpus, place.resources)), list(steps))

    async def _try(self, task: Any, steps: Sequence[Step]) -> None:
        """Run `task` until all of `steps` are recorded, or its failure is one that another try will not change."""
        actor = ray.get_runtime_context().current_actor
        broken = 0
        while steps:
            try:
                await task.remote(steps, self._ledger, self._cluster, actor)
                break
            except Exception as error:  # noqa: BLE001 - each kind is judged
                verdict = judge(error)
                broken += verdict is Verdict.BROKE
                if verdict is Verdict.FINAL or broken > self._cluster.training.max_failures:
                    raise await self._reason(error, steps[0], broken) from None
                log.warning("%s is tried again: %s", steps[0].label, explain(error))
                await asyncio.sleep(pause_before(max(1, broken)))
                steps = [step for step in steps if not await asyncio.to_thread(self._ledger.holds, step)]
        for step in steps:
            self.logs.pop(step.key, None)

    async def _reason(self, error: Exception, step: Step, tries: int) -> Exception:
        """What to tell of a failure for good: an error of our code as it is, a process that died with the end of its log."""
        root = root_of(error)
        if isinstance(root, UserError):
            return root
        if not isinstance(root, RayError):
            return error
        lines = await self._log_tail(step.key)
        told = f"{step.label} ({step.key}) was tried {tries} times; the last time: {str(root).strip()}"
        return StepLostError(told + (f"\nthe end of its log:\n{lines}" if lines else ""))

    async def _log_tail(self, key: str) -> str:
        """The last lines that the process of a step wrote; empty when its node is gone or it wrote none."""
        node, file = self.logs.pop(key, ("", ""))
        if not file:
            return ""
        here = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
        try:
            return await _tail.options(scheduling_strategy=here).remote(file)
        except RayError:
            return ""


def _options(cpus: float, gpus: float, resources: dict[str, float]) -> dict[str, Any]:
    return {"num_cpus": cpus, "num_gpus": gpus, "resources": resources, "max_retries": 0}


@ray.remote
def _compute_checkpoint(steps: Sequence[Checkpoint], ledger: Ledger, cluster: Cluster, actor: Any) -> None:
    (step,) = steps
    _tell_start(step.key, actor)
    compute_checkpoint(step, ledger, cluster, _Notes(actor))


@ray.remote
def _compute_scores(steps: Sequence[Asked], ledger: Ledger, cluster: Cluster, actor: Any) -> None:
    _tell_start(steps[0].key, actor)
    compute_scores(steps, ledger, cluster, _Notes(actor))


@ray.remote(num_cpus=0, max_retries=0)
def _tail(file: str) -> str:
    lines = Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
    told = [line for line in lines if not line.startswith(":")]  # Ray marks with a colon which task began
    return "\n".join(told[-LOG_LINES:])


def _tell_start(key: str, actor: Any) -> None:
    """Tell the actor where this process's standard error goes: nobody can ask it once it is dead."""
    link = Path("/proc/self/fd/2")
    if link.exists():
        actor.started.remote(key, ray.get_runtime_context().get_node_id(), str(link.readlink()))


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

    def begin(self, step: Checkpoint) -> None:
        """See `Steps.begin`."""
        self._actor.begin.remote(step)
