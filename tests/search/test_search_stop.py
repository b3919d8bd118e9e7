"""A budget ends a trial after the stage that breaks it, says so everywhere, and is forgotten with its line in the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from made import write_sweep
from pretended import SEARCH, Pretence, pretence, rates, run, told  # noqa: F401 - pretence is a fixture

from lmmcl.config.search_settings import Limit, budget_broken
from lmmcl.config.sweep import load_sweep
from lmmcl.ledger import Ledger
from lmmcl.reports.collect import collect
from lmmcl.reports.page.page_data import page_data
from lmmcl.reports.tables.table import markdown_table

BUDGET = SEARCH + "search: {stop: {held_out_forgetting: {below: -10}}}\n"


@pytest.fixture
def sweep(tmp_path: Path, pretence: Pretence) -> Path:  # noqa: F811
    path = write_sweep(tmp_path, BUDGET)
    done = run(path)
    assert done.exit_code == 0, done.output
    return path


def test_a_trial_ends_after_the_stage_that_breaks_its_budget(sweep: Path) -> None:
    trial = load_sweep(sweep).trials[3]
    ledger = Ledger(str(sweep.parent / "store"))
    reached = [ledger.find(stage.checkpoint) is not None for stage in trial.stages]
    assert reached == [True, True, False, False]
    assert not any(ledger.find(step) for stage in trial.stages[2:] for step in stage.asked)


def test_the_report_says_where_why_and_by_how_much(sweep: Path) -> None:
    report = told("report", sweep)
    assert rates(report["trials"], state="done") == [1e-6, 1e-5]
    assert rates(report["trials"], state="stopped") == [1e-4, 1e-3]
    stopped = report["trials"][3]
    assert stopped["stopped"] == {
        "stage": 1,
        "measure": "held_out_forgetting",
        "value": pytest.approx(-18),
        "limit": -10,
        "by": "budget",
    }
    assert stopped["error"] is None and not stopped["on_pareto_front"]
    assert [stage["number"] for stage in stopped["stages"]] == [0, 1]
    stages = 2 * 3 + 2 + 1  # of a fine-tune and five benchmarks each, after those of the pre-trained model
    assert report["recorded"] == report["wanted"] == 6 + 6 * stages
    results = collect(load_sweep(sweep), Ledger(str(sweep.parent / "store")))
    on_page = {trial["stopped"] for trial in page_data(results)["trials"] if trial["stopped"]}
    assert on_page == {
        f"held-out forgetting {text} is below -10 after stage {n}" for text, n in (("-18.0", 1), ("-16.0", 2))
    }
    text = markdown_table(results)
    assert "2 stopped" in text and "held-out forgetting -18.0 is below -10 after stage 1" in text


def test_status_and_plan_want_no_more_than_what_is_walked(sweep: Path) -> None:
    status, plan = told("status", sweep), told("plan", sweep)
    assert status["recorded"] == status["wanted"]
    assert [(trial["next"], trial["stages"]) for trial in status["trials"]] == [
        (None, 4),
        (None, 4),
        (None, 3),
        (None, 2),
    ]
    assert [trial["stopped"] and trial["stopped"]["stage"] for trial in status["trials"]] == [None, None, 2, 1]
    assert not any(plan["to_run"].values())
    assert plan["trials"][3]["stopped"]["limit"] == -10 and plan["trials"][3]["wanted"] == plan["trials"][3]["recorded"]


def test_a_rerun_computes_nothing_and_shows_the_same(sweep: Path, pretence: Pretence) -> None:  # noqa: F811
    before, shown = len(pretence.computed), told("report", sweep)["trials"]
    again = run(sweep)
    assert again.exit_code == 0 and "0 steps computed" in again.output
    assert len(pretence.computed) == before
    assert told("report", sweep)["trials"] == shown


def test_without_the_rule_the_trial_goes_on_from_there(sweep: Path, pretence: Pretence) -> None:  # noqa: F811
    pretence.computed.clear()
    write_sweep(sweep.parent, SEARCH)
    assert run(sweep).exit_code == 0
    mild, strong = load_sweep(sweep).trials[2:]
    left = {
        key
        for trial, stage in ((mild, 3), (strong, 2))
        for key in set(trial.steps()) - set(trial.steps(trial.stages[:stage]))
    }
    assert sorted(pretence.computed) == sorted(left)
    assert {each["state"] for each in told("report", sweep)["trials"]} == {"done"}


def test_a_rule_that_comes_later_applies_to_what_is_recorded(sweep: Path) -> None:
    write_sweep(sweep.parent, SEARCH)
    run(sweep)
    write_sweep(sweep.parent, BUDGET.replace("-10", "-5"))
    assert rates(told("report", sweep)["trials"], state="stopped") == [1e-4, 1e-3]


def test_what_another_trial_needs_of_a_stopped_one_is_computed(tmp_path: Path, pretence: Pretence) -> None:  # noqa: F811
    text = BUDGET.replace("learning_rate: [1.0e-6, 1.0e-5, 1.0e-4, 1.0e-3]", "learning_rate: [1.0e-3], mitigation: [null, {task_arithmetic: {scale: 0.5}}]")  # fmt: skip
    path = write_sweep(tmp_path, text.replace("-10", "-16"))
    assert run(path).exit_code == 0
    plain, merged = load_sweep(path).trials
    states = {each["name"]: each["state"] for each in told("report", path)["trials"]}
    assert states == {plain.name: "stopped", merged.name: "done"}
    ledger = Ledger(str(tmp_path / "store"))
    assert all(ledger.find(step) for step in merged.steps().values())
    assert len(pretence.computed) == len(set(pretence.computed)), "a step was computed twice"


def test_a_budget_that_the_last_stage_breaks_ends_nothing(tmp_path: Path, pretence: Pretence) -> None:  # noqa: F811
    path = write_sweep(tmp_path, BUDGET.replace("-10", "-50"))
    run(path)
    trials = told("report", path)["trials"]
    assert {trial["state"] for trial in trials} == {"done"}
    assert min(trial["held_out_forgetting"] for trial in trials) < -50


def test_several_limits_may_be_given_on_either_side() -> None:
    stop = {"learning": Limit(above=90), "held_out_forgetting": Limit(below=-10, above=5)}
    measured = {"learning": 80.0, "held_out_forgetting": -10.0}
    assert budget_broken(stop, 1, measured) is None, "at the limit is within it"
    assert budget_broken(stop, 1, {}) is None, "what is not defined yet breaks nothing"
    found = budget_broken(stop, 2, {**measured, "held_out_forgetting": 6.0})
    assert found is not None and (found.stage, found.limit) == (2, 5)
    assert str(found) == "held-out forgetting +6.0 is above +5 after stage 2"
