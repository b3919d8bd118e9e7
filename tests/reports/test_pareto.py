from __future__ import annotations

from dataclasses import replace

import pytest
from synthetic_results import make_trial

from lmmcl.reports.pareto import beaten_by, fronts, on_front, pareto_front
from lmmcl.reports.results import SweepResults, TrialResult


def at(key: str, learning: float, held_out: float, **changes: object) -> TrialResult:
    trial = make_trial(key=key, updates=0)
    measures = {"learning": learning, "held_out_forgetting": held_out}
    stages = [*trial.stages[:-1], replace(trial.stages[-1], measures=measures)]
    return replace(trial, stages=stages, **changes)


def test_the_front_holds_what_no_other_point_beats_from_left_to_right() -> None:
    points = {
        "sa": (25.0, -0.6),
        "gate_up": (30.0, -2.1),
        "llm": (31.8, -23.3),
        "lora": (24.0, -6.0),
        "full": (31.0, -30.0),
    }
    assert pareto_front(points) == ["sa", "gate_up", "llm"]


def test_equal_points_stay_on_the_front_together() -> None:
    assert sorted(pareto_front({"a": (1.0, 1.0), "b": (1.0, 1.0), "c": (1.0, 0.0)})) == ["a", "b"]


def test_an_empty_sweep_has_an_empty_front() -> None:
    assert pareto_front({}) == []
    assert on_front(SweepResults("empty", [])) == set()


def test_a_trial_that_learned_nothing_is_on_no_front_and_beats_nobody() -> None:
    """It keeps everything, so that it would be on every front."""

    def with_interval(key: str, learning: float, low: float, held_out: float) -> TrialResult:
        trial = at(key, learning, held_out)
        last = replace(trial.stages[-1], intervals={"learning": (low, 2 * learning - low)})
        return replace(trial, stages=[*trial.stages[:-1], last])

    idle, little = with_interval("idle", 0.3, -0.6, 0.0), with_interval("little", 4.3, 2.5, -0.6)
    lucky, none = with_interval("lucky", 5.0, -1.0, 0.0), at("none", 0.0, 0.0)
    results = SweepResults("s", [idle, little, lucky, none])
    assert on_front(results) == {"little"}
    places = {trial.key: place for place, trial in enumerate(results.trials)}
    assert [(key, beats.any()) for key, beats in beaten_by(results, places)] == [("little", False)]


@pytest.mark.parametrize("state", ["partial", "failed"])
def test_a_trial_that_did_not_finish_beats_nobody(state: str) -> None:
    trials = [at("done", 10.0, -1.0), at("unfinished", 50.0, 0.0, state=state)]
    assert on_front(SweepResults("s", trials)) == {"done"}


def test_a_trial_without_a_finite_score_beats_nobody() -> None:
    assert on_front(SweepResults("s", [at("a", 10.0, -1.0), at("b", float("nan"), 0.0)])) == {"a"}


def test_models_are_compared_with_themselves_only() -> None:
    other = at("other", 90.0, 0.0)
    other = replace(other, axes={**other.axes, "model": "another"})
    found = fronts(SweepResults("s", [at("a", 10.0, -1.0), other]))
    assert [[trial.key for trial in front] for front in found] == [["a"], ["other"]]


def test_the_order_of_the_skills_does_not_keep_trials_apart() -> None:
    backwards = at("backwards", 90.0, 0.0)
    backwards = replace(backwards, skills=backwards.skills[::-1])
    assert on_front(SweepResults("s", [at("a", 10.0, -1.0), backwards])) == {"backwards"}
