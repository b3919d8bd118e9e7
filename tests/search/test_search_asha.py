"""ASHA ends trials stage by stage; what it decided is in the store, and what is recorded competes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made import made_trial, write_sweep
from pretended import SEARCH, Pretence, pretence, rates, run, told  # noqa: F401 - pretence is a fixture

from lmmcl.config.search_settings import Asha
from lmmcl.config.sweep import load_sweep
from lmmcl.ledger import Ledger
from lmmcl.search.search_state import Decisions

HALVED = SEARCH.replace("1.0e-4, 1.0e-3]", "1.0e-4, 1.0e-3, 3.0e-4, 3.0e-5]") + (
    "search: {scheduler: {asha: {metric: learning, reduction_factor: 2}}}\n"
)


def finished_stages(sweep: Path) -> dict[float, int]:
    return {trial["learning_rate"]: len(trial["stages"]) - 1 for trial in told("report", sweep)["trials"]}


def test_the_worse_trials_end_at_a_rung_and_the_report_says_so(tmp_path: Path, pretence: Pretence) -> None:  # noqa: F811
    sweep = write_sweep(tmp_path, HALVED)
    done = run(sweep)
    assert done.exit_code == 0, done.output
    # Rungs are stages 1 and 2. In their order 1e-6, 1e-5, 1e-4, 1e-3 are each the best so far; then come 3e-4 and 3e-5.
    assert finished_stages(sweep) == {1e-6: 3, 1e-5: 3, 1e-4: 3, 1e-3: 3, 3e-4: 3, 3e-5: 1}
    trial = next(trial for trial in told("report", sweep)["trials"] if trial["state"] == "stopped")
    assert trial["stopped"]["by"] == "asha" and trial["stopped"]["measure"] == "learning"
    assert trial["stopped"]["value"] < trial["stopped"]["limit"]
    assert f"stopped: learning {trial['stopped']['value']:+.1f} is below" in done.output
    assert told("status", sweep)["trials"][-1]["stopped"]["stage"] == 1


def test_a_rerun_ends_the_same_trials_and_computes_nothing(tmp_path: Path, pretence: Pretence) -> None:  # noqa: F811
    sweep = write_sweep(tmp_path, HALVED)
    run(sweep)
    before, stages = len(pretence.computed), finished_stages(sweep)
    again = run(sweep)
    assert again.exit_code == 0 and "0 steps computed" in again.output
    assert len(pretence.computed) == before and finished_stages(sweep) == stages


def test_a_killed_run_goes_on_with_what_was_decided(tmp_path: Path, pretence: Pretence) -> None:  # noqa: F811
    sweep, trained = write_sweep(tmp_path, HALVED), []

    def dies(step: Any) -> None:
        if step.kind == "finetune":
            trained.append(step)
            if len(trained) == 8:  # all six at stage 1, and the second of those that may train stage 2
                raise KeyboardInterrupt

    pretence.breaks = dies
    assert run(sweep).exit_code == 130
    assert len(list((tmp_path / "store" / "searches").rglob("*-1.json"))) == 6
    pretence.breaks = lambda step: None
    assert run(sweep).exit_code == 0
    assert finished_stages(sweep)[3e-5] == 1 and len(pretence.computed) == len(set(pretence.computed))


def test_a_trial_that_comes_later_competes_with_what_is_recorded(tmp_path: Path, pretence: Pretence) -> None:  # noqa: F811
    sweep = write_sweep(tmp_path, HALVED)
    run(sweep)
    write_sweep(tmp_path, HALVED.replace("3.0e-5]", "3.0e-5, 2.0e-6, 9.0e-4]"))
    run(sweep)
    assert {rate: finished_stages(sweep)[rate] for rate in (2e-6, 9e-4)} == {2e-6: 1, 9e-4: 3}


def test_without_the_scheduler_the_ended_trials_go_on(tmp_path: Path, pretence: Pretence) -> None:  # noqa: F811
    sweep = write_sweep(tmp_path, HALVED)
    run(sweep)
    pretence.computed.clear()
    write_sweep(tmp_path, HALVED.split("search:")[0])
    run(sweep)
    assert len(pretence.computed) == 2 * 6 and set(finished_stages(sweep).values()) == {3}


def test_orders_and_models_are_not_compared_with_each_other(tmp_path: Path, pretence: Pretence) -> None:  # noqa: F811
    text = HALVED.replace("birds]}", "birds], other: [clock, birds, counting]}").replace(
        "recipe:", "order: [main, other], recipe:"
    )
    sweep = write_sweep(tmp_path, text.replace("[1.0e-6, 1.0e-5, 1.0e-4, 1.0e-3, 3.0e-4, 3.0e-5]", "[1.0e-3, 1.0e-5]"))
    run(sweep)
    ended = [(trial["order"], trial["learning_rate"]) for trial in told("report", sweep)["trials"] if trial["stopped"]]
    assert ended == [("main", 1e-5), ("other", 1e-5)]


def test_a_budget_and_a_scheduler_and_a_search_go_together(tmp_path: Path, pretence: Pretence) -> None:  # noqa: F811
    text = SEARCH.replace("[1.0e-6, 1.0e-5, 1.0e-4, 1.0e-3]", "{log_uniform: [1.0e-6, 1.0e-3]}") + (
        "search:\n  stop: {held_out_forgetting: {below: -12}}\n  scheduler: {asha: {metric: overall, reduction_factor: 2}}\n"
        "  optuna: {trials: 12, objectives: {learning: max}}\n"
    )
    sweep = write_sweep(tmp_path, text)
    done = run(sweep)
    assert done.exit_code == 0, done.output
    trials = told("report", sweep)["trials"]
    assert len(trials) == 12
    assert {trial["stopped"]["by"] for trial in trials if trial["stopped"]} == {"asha", "budget"}
    assert "0 steps computed" in run(sweep).output


@pytest.mark.parametrize(
    ("settings", "stages", "rungs"),
    [
        ({}, 5, (1, 3)),
        ({"grace_stages": 2, "reduction_factor": 2}, 8, (2, 4)),
        ({"reduction_factor": 2.5}, 5, (1, 3)),
        ({"grace_stages": 3}, 3, ()),
        ({"reduction_factor": 1.7}, 5, (1, 2, 3)),
        ({"reduction_factor": 1.05}, 5, (1, 2, 3, 4)),
        ({"reduction_factor": 1.0000001}, 5, (1, 2, 3, 4)),
        ({"reduction_factor": 1.0000000000000002}, 5, (1, 2, 3, 4)),
    ],
)
def test_rungs_are_spaced_by_the_reduction_factor(settings: dict, stages: int, rungs: tuple[int, ...]) -> None:
    assert Asha(metric="overall", **settings).rungs(stages) == rungs


def test_of_two_runs_that_decide_at_once_the_first_is_followed(tmp_path: Path) -> None:
    trial, ledger = made_trial(), Ledger(str(tmp_path))
    one, other = (Decisions("sweep", Asha(metric="overall"), ledger) for _ in range(2))
    assert one.add(trial, 1, 10.0, 12.0, goes_on=False) is False
    assert other.add(trial, 1, 10.0, None, goes_on=True) is False
    assert other.stopped(trial) == one.stopped(trial) is not None
    (file,) = (tmp_path / "searches").rglob("*.json")
    assert json.loads(file.read_text())["name"] == trial.name


def test_a_decision_is_of_one_sweep_and_one_setting(tmp_path: Path) -> None:
    trial, ledger = made_trial(), Ledger(str(tmp_path))
    Decisions("sweep", Asha(metric="overall"), ledger).add(trial, 1, 10.0, 12.0, goes_on=False)
    for name, metric in (("other", "overall"), ("sweep", "learning")):
        assert Decisions(name, Asha(metric=metric), ledger).stopped(trial) is None
    assert load_sweep(write_sweep(tmp_path, HALVED)).search.asha is not None
