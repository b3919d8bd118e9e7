from __future__ import annotations

from dataclasses import replace

from synthetic_results import HELD_OUT, SKILLS, make_sweep, make_trial

from lmmcl.reports.results import StageResult, SweepResults, TrialResult


def costing(*costs: dict[str, float]) -> TrialResult:
    stages = [StageResult(number, None, str(number), cost=cost) for number, cost in enumerate(costs)]
    return TrialResult("k", "n", {}, [], [], stages)


def test_seconds_and_bytes_add_up_while_parameters_and_memory_are_the_largest() -> None:
    trial = costing(
        {},
        {"seconds": 2.0, "trained_parameters": 10, "checkpoint_bytes": 5},
        {"seconds": 3.0, "trained_parameters": 8, "checkpoint_bytes": 5},
    )
    assert (trial.cost("seconds"), trial.cost("trained_parameters"), trial.cost("checkpoint_bytes")) == (5.0, 10, 10)
    assert trial.cost("peak_memory_bytes") is None


def test_the_final_measure_is_that_of_the_last_stage_and_absent_where_it_is_not_a_number() -> None:
    trial = make_trial(stages=3)
    assert trial.measure("learning") == trial.stages[3].measures["learning"]
    odd = replace(trial.stages[3], measures={"learning": float("nan")}, intervals={"learning": (float("nan"), 1.0)})
    trial = replace(trial, stages=[*trial.stages[:3], odd])
    assert trial.measure("learning") is None and trial.interval("learning") is None
    assert TrialResult("k", "n", {}, [], []).measure("learning") is None


def test_benchmarks_stand_in_the_order_of_teaching_then_held_out_then_the_rest() -> None:
    trial = make_trial(stages=1)
    wider = replace(trial, stages=[replace(stage, scores={"extra": 1.0, **stage.scores}) for stage in trial.stages])
    assert wider.benchmarks() == [*SKILLS, *HELD_OUT, "extra"]


def test_a_skill_taught_twice_is_one_benchmark() -> None:
    trial = replace(make_trial(), skills=[*SKILLS, "birds"])
    assert trial.benchmarks() == [*SKILLS, *HELD_OUT]


def test_axes_tell_what_varies_from_what_does_not() -> None:
    results = make_sweep(recipes=["full", "sa_proj"], rates=[3e-5, 1e-5], mitigations=["lwf", None])
    assert results.varying() == ["recipe", "mitigation", "learning_rate"]
    assert results.constant() == {"model": "tiny-onevision", "order": "main", "seed": 0}
    assert results.values("learning_rate") == [1e-5, 3e-5] and results.values("mitigation") == [None, "lwf"]


def test_an_axis_of_lists_or_of_a_grid_of_its_own_is_an_axis_like_the_others() -> None:
    one, two = make_trial(), make_trial("full")
    results = SweepResults("s", [one, replace(two, axes={**two.axes, "ranks": [8, 16]})])
    assert results.axes()[-1] == "ranks" and results.values("ranks") == [None, [8, 16]]
