"""A budget, ASHA and Optuna at once on Ray, with real steps: trials end early, their room is used, a rerun finds all of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made import SWEEP, write_sweep
from pretended import lmmcl, rates
from processes import Command

from lmmcl.config.sweep import load_sweep
from lmmcl.ledger import Ledger

SEARCH = """
search:
  stop: {held_out_forgetting: {below: -20}}
  scheduler: {asha: {metric: held_out_forgetting, mode: min, reduction_factor: 2}}  # the wrong way: all lose to the first
  optuna: {trials: 3, objectives: {learning: max, held_out_forgetting: max}}
grids:
  - {model: [tiny-onevision], recipe: [llm], learning_rate: [1.0e-1, 1.0e-9]}
  - {model: [tiny-onevision], recipe: [sa_proj], learning_rate: {log_uniform: [1.0e-4, 1.0e-3]}}
"""


def told(sweep: Path) -> list[dict[str, Any]]:
    shown = lmmcl("report", sweep, "--store", sweep.parent / "store", "--format", "json")
    return json.loads(shown.stdout)["trials"]


@pytest.mark.timeout(600)
def test_a_search_on_ray_ends_trials_early_and_is_found_again_by_the_same_command(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path, SWEEP.split("grids:")[0] + SEARCH)
    (tmp_path / "two.yaml").write_text("ray: {cpus: 2}\nmax_open_trials: 1\n")  # who kept its room would hold up all
    run = ("run", sweep.name, "--store", "store", "--cluster", "two.yaml", "--mlflow", "off")
    first = Command(*run, cwd=tmp_path)
    assert first.wait(250) == 0, first.output
    assert first.gone_within(30), first.left_behind()

    strong, weak, *searched = trials = told(sweep)
    assert [(each["stopped"]["by"], each["stopped"]["stage"]) for each in (strong, weak)] == [
        ("budget", 1),
        ("asha", 1),
    ]
    assert len(searched) == len(set(rates(searched))) == 3
    assert {trial["state"] for trial in searched} <= {"done", "stopped"}
    decided = list((tmp_path / "store" / "searches").glob("small-asha-*/*.json"))
    assert len(decided) == 4, "all but the first, which its budget ended, were decided on at the rung"
    for trial in load_sweep(sweep).trials:
        assert Ledger(str(tmp_path / "store")).find(trial.stages[2].checkpoint) is None, "an ended trial continued"

    again = Command(*run, cwd=tmp_path)
    assert again.wait(120) == 0, again.output
    assert "0 steps computed" in again.output
    assert told(sweep) == trials
