"""Measures over orders, by hand; and where a sequence lies between its bounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic_results import make_trial

from lmmcl.reports.paired import estimate
from lmmcl.reports.pareto import on_front
from lmmcl.reports.recommend import recommend
from lmmcl.reports.results import SweepResults, TrialResult
from lmmcl.reports.tables.bound_table import between_bounds, bounds_markdown, bounds_table
from lmmcl.reports.tables.order_spread import order_spreads, orders_markdown, orders_table


def ordered(order: str, overall: float, seed: int = 0) -> TrialResult:
    trial = make_trial(seed=seed, stages=2)
    last = replace(trial.stages[-1], measures={**trial.stages[-1].measures, "overall": overall})
    axes = {**trial.axes, "order": order}
    draws = {**trial.draws, "overall": np.full(1000, overall)}
    return replace(trial, key=f"{order}{seed}", axes=axes, stages=[*trial.stages[:-1], last], draws=draws)


def test_the_sensitivity_is_the_deviation_over_orders_after_averaging_seeds() -> None:
    values = {"a": (10.0, 12.0), "b": (20.0, 22.0), "c": (13.0, 13.0)}
    trials = [ordered(order, value, seed) for order, both in values.items() for seed, value in enumerate(both)]
    found = {each.measure: each for each in order_spreads(SweepResults("s", trials))}
    overall = found["overall"]
    assert overall.by_order == {"a": 11.0, "b": 21.0, "c": 13.0}
    assert overall.sensitivity == pytest.approx(np.std([11, 21, 13], ddof=1))
    expected = estimate([11.0, 21.0, 13.0], [np.full(1000, value) for value in (11.0, 21.0, 13.0)])
    assert (overall.mean.value, overall.mean.low, overall.mean.high) == pytest.approx((15, expected.low, expected.high))
    text = orders_markdown(SweepResults("s", trials))
    assert "| 3 | overall | +15.0" in text and "+11.0 (a) … +21.0 (b)" in text
    assert orders_table(SweepResults("s", trials)) is not None


def test_one_order_says_nothing_of_orders() -> None:
    assert order_spreads(SweepResults("s", [ordered("a", 1.0)])) == []
    assert orders_markdown(SweepResults("s", [ordered("a", 1.0)])) == "" == bounds_markdown(SweepResults("s", []))
    assert orders_table(SweepResults("s", [])) is None and bounds_table(SweepResults("s", [])) is None


def scored(order: str, bound: str, skills: tuple[str, ...], base: list[float], end: list[float]) -> TrialResult:
    trial = make_trial(stages=1)
    names = ("birds", "counting")
    first = replace(trial.stages[0], scores=dict(zip(names, base, strict=True)))
    last = replace(trial.stages[1], scores=dict(zip(names, end, strict=True)))
    if bound == "alone":
        first, last = (replace(stage, scores={order[6:]: stage.scores[order[6:]]}) for stage in (first, last))
    axes = {**trial.axes, "order": order}
    return replace(trial, key=order, axes=axes, bound=bound, skills=skills, held_out=(), stages=[first, last])


def test_a_sequence_keeps_a_share_of_what_joint_training_gains() -> None:
    base = [10.0, 0.0]
    trials = [
        scored("main", "", ("birds", "counting"), base, [40.0, 60.0]),
        scored("joint", "joint", ("joint",), base, [80.0, 70.0]),
        scored("alone-birds", "alone", ("birds",), base, [90.0, 5.0]),
        scored("alone-counting", "alone", ("counting",), base, [7.0, 60.0]),
    ]
    [found] = between_bounds(SweepResults("s", trials))
    assert (found.base, found.sequence, found.alone, found.joint) == (5.0, 50.0, 75.0, 75.0)
    assert found.share == pytest.approx(45 / 70)
    assert "| 5.0 | 50.0 | 75.0 | 75.0 | 64% |" in bounds_markdown(SweepResults("s", trials))
    assert between_bounds(SweepResults("s", trials[:1])) == []
    [without] = between_bounds(SweepResults("s", trials[:2]))
    assert without.alone is None and without.joint == 75.0


def test_a_bound_is_on_no_front_and_never_recommended() -> None:
    trials = [make_trial(), replace(make_trial("gate_up"), bound="joint")]
    results = SweepResults("s", trials)
    assert on_front(results) == {trials[0].key}
    assert [choice.trial.key for advice in recommend(results) for choice in advice.choices] == [trials[0].key]
    assert len(on_front(SweepResults("s", [trials[0], make_trial("gate_up")]))) == 2, (
        "it would be on the front otherwise"
    )
