"""What the steps actor remembers of running steps: which process computes one, and what it reports, and no longer than that."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made import made_trial
from ray.exceptions import WorkerCrashedError

from lmmcl.back_off import BackOff
from lmmcl.config.cluster import Cluster
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.runner.ray_backend import steps_actor
from lmmcl.runner.ray_backend.processes import ProcessLocation
from lmmcl.runner.ray_backend.steps_actor import RayExecutor, StepLostError, StepsActor

STEP = made_trial().stages[1].checkpoint
CLUSTER = Cluster.model_validate({"training": {"max_failures": 1}})


class Call:
    """A call that says where it is computed and then fails with each of `errors`, or ends well where that is None."""

    def __init__(self, executor: RayExecutor, *errors: Exception | None) -> None:
        self._executor, self._errors = executor, list(errors)
        self.known: list[bool] = []

    async def __call__(self, *_: Any, **__: Any) -> None:
        self.known.append(STEP.key in self._executor.where)
        self._executor.where[STEP.key] = ProcessLocation("node", 4711, "")
        if (error := self._errors.pop(0)) is not None:
            raise error


@pytest.fixture
def executor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RayExecutor:
    monkeypatch.setattr(steps_actor, "PAUSES", BackOff(0.0))
    return RayExecutor(Ledger(str(tmp_path)), CLUSTER)


def test_a_process_is_forgotten_when_its_try_ends_well_or_not(executor: RayExecutor) -> None:
    executor._call = call = Call(executor, WorkerCrashedError(), None)  # type: ignore[method-assign]
    asyncio.run(executor._try(print, {}, [STEP]))
    assert call.known == [False, False], "the first try's process is no longer known in the second"
    assert executor.where == {}


@pytest.mark.parametrize(
    ("errors", "told"),
    [([UserError("bad row")], UserError), ([WorkerCrashedError(), WorkerCrashedError()], StepLostError)],
)
def test_a_process_is_forgotten_when_its_step_is_given_up(
    errors: list[Exception], told: type[Exception], executor: RayExecutor
) -> None:
    executor._call = Call(executor, *errors)  # type: ignore[method-assign]
    with pytest.raises(told):
        asyncio.run(executor._try(print, {}, [STEP]))
    assert executor.where == {}


def test_notes_go_with_their_steps(tmp_path: Path) -> None:
    actor = StepsActor(Ledger(str(tmp_path)), CLUSTER)
    flying = SimpleNamespace(keys=["one", "other"])
    actor._scheduler = flying  # type: ignore[assignment]

    async def live() -> None:
        await actor.note("one", {"update": 1})
        assert await actor.running() == {"one": {"update": 1}, "other": {}}
        flying.keys = ["other"]
        await actor.running()
        await actor.note("one", {"update": 2})
        assert actor._notes == {}

    asyncio.run(live())


def test_the_actor_tells_how_many_drivers_wait_and_how_much_is_computed(tmp_path: Path) -> None:
    actor = StepsActor(Ledger(str(tmp_path)), CLUSTER)
    go = asyncio.Event()

    async def compute(step: Any) -> None:
        await go.wait()

    actor._executor._compute_checkpoint = compute  # type: ignore[method-assign]

    async def live() -> None:
        computing = asyncio.ensure_future(actor._executor([STEP]))
        asking = asyncio.ensure_future(actor.records([]))
        actor._scheduler.records = lambda steps: go.wait()  # type: ignore[assignment,method-assign]
        await asyncio.sleep(0)
        assert await actor.load() == (1, 1)
        go.set()
        await asyncio.gather(computing, asking)
        assert await actor.load() == (0, 0)

    asyncio.run(live())
