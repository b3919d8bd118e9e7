"""How flights fill a cluster, in time that is only counted: evaluation beside training, and makespan near the best packing."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from orchestration import Simulated, longest_chain, minutes, trials

from lmmcl.config.cluster import Cluster
from lmmcl.ledger import Ledger
from lmmcl.runner.in_flight import ConcurrentScheduler
from lmmcl.steps import Step
from lmmcl.steps.trial import Trial


class Hurried(selectors.DefaultSelector):
    """Waits for nothing: the time that it would have waited is added to a clock."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        self.now += max(0.0, timeout or 0.0)
        return super().select(0)


class CountedTime(asyncio.SelectorEventLoop):
    """An event loop whose sleeps take no time."""

    def __init__(self) -> None:
        self.hurried = Hurried()
        super().__init__(self.hurried)

    def time(self) -> float:
        return self.hurried.now


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[CountedTime]:
    async def here(function: Any, *arguments: Any) -> Any:
        return function(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", here)  # a thread would run in time that is not counted
    made = CountedTime()
    yield made
    made.close()


class Watched(Simulated):
    """Remembers when each step ran."""

    def __init__(self, ledger: Ledger, gpus: int) -> None:
        super().__init__(ledger, gpus, 1.0)
        self.ran: dict[str, tuple[float, float]] = {}

    def _record(self, step: Step) -> None:
        super()._record(step)
        assert step.key not in self.ran, "computed twice"
        self.ran[step.key] = (0.0, asyncio.get_running_loop().time())

    async def _spend(self, spent: float, steps: Sequence[Step]) -> None:
        await super()._spend(spent, steps)
        for step in steps:  # several that are asked at once count as one piece of work
            ended = self.ran[step.key][1]
            self.ran[step.key] = (ended - spent, ended)


async def walk(scheduler: ConcurrentScheduler, trial: Trial, door: asyncio.Semaphore) -> None:
    """As `lmmcl.runner.trial_driver.walk`, whose calls `tests/runner/test_in_flight.py` holds to this order."""
    async with door:
        for stage, following in zip(trial.stages, [*trial.stages[1:], None], strict=True):
            if following:
                scheduler.prefetch(following.checkpoint)
            await scheduler.records(stage.asked)


def walked(loop: CountedTime, folder: Path, number: int, stages: int, gpus: int) -> tuple[Watched, list[Trial]]:
    made = trials(number, stages)
    simulated = Watched(Ledger(str(folder)), gpus)

    async def all_of_them() -> None:
        scheduler, door = ConcurrentScheduler(Ledger(str(folder)), Cluster(), simulated), asyncio.Semaphore(2 * gpus)
        await asyncio.gather(*(walk(scheduler, trial, door) for trial in made))

    loop.run_until_complete(all_of_them())
    return simulated, made


def test_a_stage_is_evaluated_while_the_next_one_trains(loop: CountedTime, tmp_path: Path) -> None:
    simulated, [trial] = walked(loop, tmp_path, 1, 4, gpus=2)
    at = 0.0
    for stage, following in zip(trial.stages, trial.stages[1:], strict=False):
        asked, trained = simulated.ran[stage.asked[0].key], simulated.ran[following.checkpoint.key]
        assert (asked[0], trained[0]) == (pytest.approx(at), pytest.approx(at)), (
            "both as soon as the stage before is there"
        )
        at += max(sum(minutes(step) for step in stage.asked), minutes(following.checkpoint))
    assert loop.time() == pytest.approx(at + sum(minutes(step) for step in trial.stages[-1].asked))


def test_a_grid_takes_hardly_longer_than_the_best_packing(loop: CountedTime, tmp_path: Path) -> None:
    simulated, made = walked(loop, tmp_path, 24, 3, gpus=6)
    assert set(simulated.ran) == {key for trial in made for key in trial.steps()}
    best = max(simulated.work / 6, max(map(longest_chain, made)))
    assert loop.time() <= 1.10 * best


def test_twice_the_gpus_take_half_the_time(loop: CountedTime, tmp_path: Path) -> None:
    walked(loop, tmp_path / "two", 16, 2, gpus=2)
    long = loop.time()
    walked(loop, tmp_path / "four", 16, 2, gpus=4)
    assert loop.time() - long == pytest.approx(long / 2, rel=0.15)
