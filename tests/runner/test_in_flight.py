"""Every step is computed once, whoever asks, and a failed one can be asked for again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from made import made_trial

from lmmcl.config.cluster import Cluster
from lmmcl.ledger import Ledger
from lmmcl.ledger.record import DamagedError
from lmmcl.runner.in_flight import ConcurrentScheduler
from lmmcl.runner.trial_driver import run_trial
from lmmcl.steps import Checkpoint, Evaluate


class Pretend:
    """Computes nothing and records everything, in a little time."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.computed: Counter[str] = Counter()
        self.broken: set[str] = set()
        self.damaged: set[str] = set()
        self.at_once = self.most_at_once = 0

    async def __call__(self, steps: Sequence[Checkpoint | Evaluate]) -> None:
        for step in steps:
            await self._compute(step)

    def scheduler(self) -> ConcurrentScheduler:
        return ConcurrentScheduler(self.ledger, Cluster(), self)

    async def _compute(self, step: Checkpoint | Evaluate) -> None:
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        await asyncio.sleep(0.005)
        self.at_once -= 1
        assert all(self.ledger.find(parent) for parent in step.parents), "a parent is missing"
        for parent in step.parents:
            if parent.label in self.damaged:
                self.damaged.discard(parent.label)
                self.ledger.quarantine(parent.path)
                raise DamagedError("checksum mismatch", file=parent.path)
        self.computed[step.key] += 1
        if step.label in self.broken:
            raise RuntimeError(f"{step.label} broke")
        with self.ledger.writing(step) as draft:
            draft.commit({"score": 100.0, "sample_scores": [1.0]})


@pytest.fixture
def pretend(tmp_path: Path) -> Pretend:
    return Pretend(Ledger(str(tmp_path)))


def walk(pretend: Pretend, *trials) -> list:
    async def one(scheduler: ConcurrentScheduler, trial) -> int:
        for stage in trial.stages:
            assert len(await scheduler.records(stage.evaluations)) == len(stage.evaluations)
        return len(trial.stages)

    async def every() -> list:
        scheduler = pretend.scheduler()
        done = await asyncio.gather(*(one(scheduler, trial) for trial in trials), return_exceptions=True)
        assert scheduler.keys == []
        return done

    return asyncio.run(every())


def test_asking_for_scores_brings_checkpoints_into_being_parents_first(pretend: Pretend) -> None:
    assert walk(pretend, made_trial()) == [3]
    assert set(pretend.computed.values()) == {1}
    assert set(pretend.computed) == set(made_trial().steps())


def test_trials_that_run_at_once_compute_shared_steps_once_and_the_rest_side_by_side(pretend: Pretend) -> None:
    trials = [made_trial(seed=seed) for seed in range(4)] + [made_trial(skills=("first", "third"))]
    walk(pretend, *trials)
    assert set(pretend.computed.values()) == {1}
    assert pretend.most_at_once >= 4


def test_what_the_ledger_holds_is_not_computed_again(pretend: Pretend) -> None:
    walk(pretend, made_trial())
    pretend.computed.clear()
    walk(pretend, made_trial(), made_trial(held_out=("kept", "new")))
    assert {made_trial(held_out=("kept", "new")).steps()[key].label for key in pretend.computed} == {"new"}


def test_a_broken_step_fails_those_that_need_it_and_no_others(pretend: Pretend) -> None:
    bad = made_trial("sa_proj")
    pretend.broken = {bad.stages[1].checkpoint.label}
    failed, fine = walk(pretend, bad, made_trial("gate_up"))
    assert "broke" in str(failed)
    assert fine == 3


def test_a_failed_step_can_be_asked_for_again(pretend: Pretend) -> None:
    trial = made_trial()
    pretend.broken = {trial.stages[1].checkpoint.label}
    assert isinstance(walk(pretend, trial)[0], RuntimeError)
    pretend.broken = set()
    assert walk(pretend, trial) == [3]


def test_a_waiter_that_goes_away_takes_no_computation_down(pretend: Pretend) -> None:
    async def story() -> None:
        scheduler = pretend.scheduler()
        evaluations = made_trial().stages[0].evaluations
        first = asyncio.create_task(scheduler.records(evaluations))
        await asyncio.sleep(0)
        second = asyncio.create_task(scheduler.records(evaluations))
        await asyncio.sleep(0)
        first.cancel()
        assert len(await second) == len(evaluations)

    asyncio.run(story())
    assert set(pretend.computed.values()) == {1}


def test_a_checkpoint_that_is_prefetched_is_computed_while_nobody_waits_and_once(pretend: Pretend) -> None:
    trial = made_trial()

    async def story() -> None:
        scheduler = pretend.scheduler()
        scheduler.prefetch(trial.stages[1].checkpoint)
        scheduler.prefetch(trial.stages[1].checkpoint)
        await scheduler.records(trial.stages[0].evaluations)
        while scheduler.keys:
            await asyncio.sleep(0.005)
        assert pretend.ledger.find(trial.stages[1].checkpoint)
        await scheduler.records(trial.stages[1].evaluations)

    asyncio.run(story())
    assert set(pretend.computed.values()) == {1}


def test_a_prefetch_that_fails_is_told_to_who_asks_next_and_not_computed_again_for_it(pretend: Pretend) -> None:
    trial = made_trial()
    stage = trial.stages[1]
    pretend.broken = {stage.checkpoint.label}

    async def story() -> None:
        scheduler = pretend.scheduler()
        scheduler.prefetch(stage.checkpoint)
        await scheduler.records(trial.stages[0].evaluations)
        while scheduler.keys:
            await asyncio.sleep(0.005)
        with pytest.raises(RuntimeError, match="broke"):
            await scheduler.records(stage.evaluations)
        assert pretend.computed[stage.checkpoint.key] == 1
        pretend.broken = set()
        assert len(await scheduler.records(stage.evaluations)) == len(stage.evaluations)

    asyncio.run(story())


def test_scores_that_are_prefetched_are_computed_once_and_a_failure_is_told_once(pretend: Pretend) -> None:
    asked = made_trial(held_out=("kept", "other")).stages[0].evaluations
    pretend.broken = {asked[-1].label}

    async def story() -> None:
        scheduler = pretend.scheduler()
        scheduler.prefetch_scores(asked)
        scheduler.prefetch_scores(asked)
        while scheduler.keys:
            await asyncio.sleep(0.005)
        with pytest.raises(RuntimeError, match="broke"):
            await scheduler.records(asked)
        pretend.broken = set()
        assert len(await scheduler.records(asked)) == len(asked)

    asyncio.run(story())
    assert pretend.computed.pop(asked[-1].key) == 2, "once when it broke, and once when it was asked for again"
    assert set(pretend.computed.values()) == {1}


def test_a_trial_begins_the_next_stage_before_it_asks_about_this_one_unless_its_scores_may_end_it(
    pretend: Pretend,
) -> None:
    trial = made_trial()

    class ScoringStep:
        def __init__(self) -> None:
            self.order: list[str] = []

        def prefetch(self, step: Checkpoint) -> None:
            self.order.append(f"prefetch {step.label}")

        def ensure_all(self, steps: Sequence[Evaluate]) -> list:
            self.order.append(f"ask {steps[0].checkpoint.label}")
            asyncio.run(pretend.scheduler().records(steps))
            return [pretend.ledger.find(step) for step in steps]

    labels = [stage.checkpoint.label for stage in trial.stages]
    early, late = ScoringStep(), ScoringStep()
    run_trial(trial, early, lambda report: None)
    run_trial(trial, late, lambda report: None, ahead=False)
    assert early.order == [
        f"prefetch {labels[1]}",
        f"ask {labels[0]}",
        f"prefetch {labels[2]}",
        f"ask {labels[1]}",
        f"ask {labels[2]}",
    ]
    assert late.order == [f"ask {label}" for label in labels]


def test_a_checkpoint_whose_file_turns_out_damaged_is_computed_again_in_the_same_run(pretend: Pretend) -> None:
    trial = made_trial()
    walk(pretend, made_trial(skills=("first",)))
    pretend.damaged = {trial.stages[1].checkpoint.label}
    assert walk(pretend, trial) == [3]
    repeated = {key for key, times in pretend.computed.items() if times > 1}
    assert repeated == {trial.stages[1].checkpoint.key}


def test_weights_that_are_dropped_under_a_running_sweep_are_computed_again(tmp_path: Path) -> None:
    trial = made_trial()

    class Reading(Pretend):
        async def _compute(self, step: Checkpoint | Evaluate) -> None:
            for parent in step.parents:
                if parent.label in self.damaged:
                    self.damaged.discard(parent.label)
                    self.ledger.drop_weights(parent.path)  # `lmmcl gc` of another sweep
                with self.ledger.opened(parent.path, "delta.safetensors") as path:
                    assert path.read_text() == parent.key
            self.computed[step.key] += 1
            with self.ledger.writing(step) as draft:
                (draft.folder / "delta.safetensors").write_text(step.key)
                draft.commit({"score": 100.0, "sample_scores": [1.0]})

    pretend = Reading(Ledger(str(tmp_path)))
    pretend.damaged = {trial.stages[1].checkpoint.label}
    assert walk(pretend, trial) == [3]
    repeated = {key for key, times in pretend.computed.items() if times > 1}
    assert repeated == {trial.stages[1].checkpoint.key}
