from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from synthetic_results import make_sweep, make_trial

from lmmcl.config.search_settings import Stopped
from lmmcl.reports.pareto import on_front
from lmmcl.reports.recommend import recommend
from lmmcl.reports.results import SweepResults, TrialResult
from lmmcl.reports.seeds import averaged, has_seeds, spread
from lmmcl.reports.tables.table import markdown_table, terminal_table


@pytest.fixture(scope="module")
def sweep() -> SweepResults:
    return make_sweep(recipes=["sa_proj", "full"], rates=[1e-5], seeds=3, updates=2)


def of(recipe: str, results: SweepResults) -> list[TrialResult]:
    return [trial for trial in results.trials if trial.axes["recipe"] == recipe]


def test_a_grid_point_is_one_row_whatever_its_seeds(sweep: SweepResults) -> None:
    assert has_seeds(sweep) and len(sweep.trials) == 6
    points = averaged(sweep)
    assert [(trial.axes["recipe"], trial.axes["seeds"]) for trial in points.trials] == [("sa_proj", 3), ("full", 3)]
    assert all("seed" not in trial.axes and " · s" not in trial.name for trial in points.trials)
    assert len({trial.key for trial in (*points.trials, *sweep.trials)}) == 8


def test_a_row_is_the_mean_with_the_spread_of_its_seeds(sweep: SweepResults) -> None:
    values = [trial.measure("learning") for trial in of("full", sweep)]
    (mean,) = of("full", averaged(sweep))
    assert mean.measure("learning") == pytest.approx(np.mean(values))
    assert spread(mean, "learning") == pytest.approx(np.std(values, ddof=1))
    assert spread(of("full", sweep)[0], "learning") is None


def test_the_interval_widens_with_what_the_seeds_differ_by(sweep: SweepResults) -> None:
    def width(far: float) -> float:
        trials = []
        for place, trial in enumerate(of("full", sweep)):
            last = trial.stages[-1]
            measures = {"learning": 10.0 + far * place}
            trials.append(
                replace(trial, stages=[replace(last, measures=measures, intervals={"learning": (9.0, 11.0)})])
            )
        (mean,) = averaged(SweepResults("s", trials)).trials
        low, high = mean.interval("learning")
        return high - low

    assert width(0.0) == pytest.approx(2.0, rel=0.01)
    assert width(0.0) < width(1.0) < width(3.0)


def test_a_seed_that_failed_is_left_out_and_told(sweep: SweepResults) -> None:
    failed = make_trial("full", 1e-5, seed=9, stages=2, state="failed", error="out of memory\nKilled", updates=2)
    done = of("full", sweep)
    (mean,) = averaged(SweepResults("s", [failed, *done])).trials
    assert mean.measure("learning") == pytest.approx(np.mean([trial.measure("learning") for trial in done]))
    assert (mean.state, mean.axes["seeds"], mean.error) == ("done", 3, "seed 9: out of memory")


def test_a_point_of_which_a_seed_was_stopped_is_stopped_where_that_seed_was(sweep: SweepResults) -> None:
    done, other, _ = of("full", sweep)
    why = Stopped(2, "held_out_forgetting", -20.0, -10.0)
    stopped = replace(other, stages=other.stages[:3], state="stopped", stopped=why)
    (mean,) = averaged(SweepResults("s", [done, stopped])).trials
    assert (mean.state, mean.stopped, mean.axes["seeds"], len(mean.stages)) == ("stopped", why, 2, 3)
    values = [trial.stages[2].measures["learning"] for trial in (done, stopped)]
    assert mean.measure("learning") == pytest.approx(np.mean(values))
    assert spread(mean, "learning") == pytest.approx(np.std(values, ddof=1))
    assert mean.draws == {}

    results = SweepResults("s", [done, stopped, *of("sa_proj", sweep)])
    points = averaged(results)
    (kept,) = of("sa_proj", points)
    assert on_front(points) == {kept.key}, "a stopped point is on no front, whatever its surviving seeds learnt"
    assert [(each.finished, each.least_lost.key) for each in recommend(points)] == [(1, kept.key)]
    console = Console(file=io.StringIO(), width=200)
    console.print(terminal_table(results, 200))
    assert "stopped 2/5" in console.file.getvalue() and str(why) in console.file.getvalue()


def test_a_stopped_seed_alone_keeps_its_draws(sweep: SweepResults) -> None:
    (one, *_) = of("full", sweep)
    why = Stopped(2, "held_out_forgetting", -20.0, -10.0)
    (mean,) = averaged(SweepResults("s", [replace(one, state="stopped", stopped=why)])).trials
    assert (mean.state, mean.stopped, mean.axes["seeds"]) == ("stopped", why, 1)
    assert set(mean.draws) == set(one.draws)


def test_tables_show_the_mean_and_count_the_trials_that_were_run(sweep: SweepResults) -> None:
    console = Console(file=io.StringIO(), width=160)
    console.print(terminal_table(sweep, 160))
    text = " ".join(console.file.getvalue().split())  # a caption is as wide as its table
    assert "6 trials (6 done)" in text and "seeds 3" in text and "over questions and seeds" in text
    assert text.count("sa_proj") == 1 and markdown_table(sweep).count("| sa\\_proj |") == 1


def test_a_sweep_of_one_seed_is_left_as_it_is() -> None:
    results = make_sweep(recipes=["sa_proj", "full"], rates=[1e-5], updates=2)
    assert not has_seeds(results) and "spread" not in markdown_table(results)
