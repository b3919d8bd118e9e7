"""Intervals of scores and of moments, from the store to what the page, JSON and data frames hold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from answered_store import answered_sweep
from page_script import NODE, evaluate
from synthetic_results import make_trial

from lmmcl.config.sweep import Sweep
from lmmcl.evaluation.intervals import wilson
from lmmcl.ledger import Ledger
from lmmcl.reports.collect import collect
from lmmcl.reports.page.page_data import page_data
from lmmcl.reports.page.score_intervals import score_interval, stage_interval
from lmmcl.reports.results import SweepResults
from lmmcl.reports.seeds import averaged
from lmmcl.reports.tables.export import as_dict
from lmmcl.reports.tables.long_rows import score_rows
from lmmcl.reports.tables.moments import moment_rows

PARTIAL = ("shape", "birds")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("partial")


@pytest.fixture(scope="module")
def sweep(folder: Path) -> Sweep:
    return answered_sweep(folder, 20, seeds=(0, 1), partial=PARTIAL, moments="updates: [5, 10]")


@pytest.fixture(scope="module")
def results(sweep: Sweep, folder: Path) -> SweepResults:
    return collect(sweep, Ledger(str(folder / "store")))


def rows(sweep: Sweep, folder: Path) -> dict[tuple[str, int, str], tuple[float, float]]:
    table = score_rows(sweep, Ledger(str(folder / "store")))
    return {(row["trial_key"], row["stage"], row["benchmark"]): (row["low"], row["high"]) for row in table}


def test_every_score_has_the_interval_of_the_table_of_scores(sweep: Sweep, results: SweepResults, folder: Path) -> None:
    expected = rows(sweep, folder)
    for trial in results.trials:
        for place, stage in enumerate(trial.stages):
            for name in stage.scores:
                assert score_interval(trial, place, name) == pytest.approx(expected[trial.key, stage.number, name])
                assert (name in stage.score_intervals) == (name in PARTIAL)


@pytest.mark.skipif(NODE is None, reason="no node on the path")
def test_the_page_draws_the_interval_of_every_score_of_every_seed(
    sweep: Sweep, results: SweepResults, folder: Path
) -> None:
    single = page_data(results)["single"]
    drawn = evaluate(
        single | {"single": None},
        ["data.js"],
        "data.trials.map((trial) => trial.stages.map((stage) => data.benchmarks.map((_, at) => scoreEnds(stage, at))))",
    )
    by_name = {trial.name: trial.key for trial in results.trials}
    expected = rows(sweep, folder)
    for trial, stages in zip(single["trials"], drawn, strict=True):
        for stage, ends in zip(trial["stages"], stages, strict=True):
            for name, pair in zip(single["benchmarks"], ends, strict=True):
                whole = expected[by_name[trial["name"]], stage["number"], name]
                assert pair == pytest.approx(whole, abs=0.01), name
                assert [f"{end:.1f}" for end in pair] == [f"{end:.1f}" for end in whole], "rounded as in the terminal"


def test_the_mean_over_seeds_varies_with_the_seeds_too(results: SweepResults) -> None:
    points = averaged(results)
    point = points.trials[0]
    for name in ("birds", "counting"):
        own = [stage_interval(run.stages[-1], name) for run in point.seeds]
        low, high = score_interval(point, len(point.stages) - 1, name) or (0.0, 0.0)
        assert low < point.stages[-1].scores[name] < high
        assert low >= 0 and high <= 100
        assert high - low > 0.9 * np.mean([ends[1] - ends[0] for ends in own if ends])
    (trial,) = [trial for trial in page_data(results)["trials"] if trial["name"] == point.name]
    assert len(trial["stages"][-1]["scoreIntervals"]) == len(point.stages[-1].scores), "none is left to Wilson alone"


def test_a_wide_spread_of_seeds_widens_the_interval_of_a_score_within_its_bounds() -> None:
    def width(*scores: float) -> float:
        seeds = [make_trial(seed=seed, stages=1, updates=2) for seed in range(len(scores))]
        seeds = [
            replace(trial, stages=[replace(trial.stages[1], scores={"birds": score}, sample_counts={"birds": 200})])
            for trial, score in zip(seeds, scores, strict=True)
        ]
        (point,) = averaged(SweepResults("s", seeds)).trials
        low, high = score_interval(point, 0, "birds") or (0.0, 0.0)
        assert 0 <= low <= high <= 100
        return high - low

    alike = wilson(100, 200)
    assert width(50.0, 50.0, 50.0) == pytest.approx(alike[1] - alike[0], rel=0.05)
    assert width(50.0, 50.0) < width(45.0, 55.0) < width(2.0, 98.0) == 100


def test_what_nothing_is_known_of_has_no_interval() -> None:
    trial = make_trial(stages=1, updates=2)
    stage = replace(trial.stages[1], scores={"birds": 33.37}, sample_counts={"birds": 500})
    assert stage_interval(stage, "birds") is None, "neither a number of right answers nor scores question by question"
    assert stage_interval(stage, "unknown") is None
    assert stage_interval(replace(stage, scores={"birds": 120.0}, sample_counts={"birds": 10}), "birds") is None


def test_moments_have_intervals_from_the_store_to_every_report(results: SweepResults) -> None:
    for trial in results.trials:
        for stage in trial.stages[1:]:
            assert list(stage.moment_intervals) == [row["update"] for row in stage.score_curve]
            for row in stage.score_curve:
                for name, (low, high) in stage.moment_intervals[int(row["update"])].items():
                    assert low <= row[name] <= high
            last = stage.moment_intervals[int(stage.score_curve[-1]["update"])]
            for name, pair in last.items():
                assert pair == pytest.approx(stage.intervals[name]), "as the stage itself"
    stage = results.trials[0].stages[1]
    assert stage.moment_intervals[0]["learning"] == (0.0, 0.0), "the start is the model that it is compared with"
    low, high = stage.moment_intervals[10]["held_out_forgetting"]
    assert high - low > 1
    told = json.loads(json.dumps(as_dict(results)))["trials"][0]["stages"][1]
    assert told["moment_intervals"]["10"]["held_out_forgetting"] == [low, high]
    row = next(row for row in moment_rows(results) if row["update"] == 10)
    assert (row["held_out_forgetting_low"], row["held_out_forgetting_high"]) == (low, high)
    along = page_data(results)["single"]["trials"][0]["stages"][1]["along"]
    assert all(ends is not None for ends in (*along["learningEnds"], *along["heldOutEnds"]))


def test_moments_averaged_over_seeds_have_an_interval_of_both(results: SweepResults) -> None:
    stage = averaged(results).trials[0].stages[1]
    row = next(row for row in stage.score_curve if row["update"] == 10)
    low, high = stage.moment_intervals[10]["held_out_forgetting"]
    assert low < row["held_out_forgetting"] < high


def test_a_table_computes_no_interval_of_moments(sweep: Sweep, folder: Path) -> None:
    from lmmcl.reports.collect import collect_results
    from lmmcl.search.run_context import RunContext

    context = RunContext.resolve(sweep, Ledger(str(folder / "store")))
    quick = collect_results(context, last_only=True, shown_only=True)
    assert not quick.trials[0].stages[1].moment_intervals and quick.trials[0].stages[1].score_curve
