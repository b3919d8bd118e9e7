"""Benchmarks asked inside stages, from the sweep file to the report: planned, evaluated on snapshots, drawn and chosen from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made import SWEEP, write_sweep
from synthetic_ledger import fill
from typer.testing import CliRunner

import lmmcl
from lmmcl.cli import app
from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.errors import UserError
from lmmcl.inspection.status import sweep_status
from lmmcl.ledger import Ledger
from lmmcl.planning.plan import make_plan
from lmmcl.reports.collect import collect
from lmmcl.steps import Evaluate, Finetune, Snapshot

LONGER = (
    SWEEP.replace("[sa_proj, gate_up]", "[gate_up]")
    .replace("[1.0e-3, 3.0e-4]", "[1.0e-3]")
    .replace("examples: 64", "examples: 128")
)
"""One trial of two stages, four updates each."""


def sweep_with(folder: Path, moments: str, text: str = LONGER, name: str = "moments.yaml") -> Sweep:
    return load_sweep(write_sweep(folder, text.replace("limit: 8", f"limit: 8, {moments}"), name))


def inside(sweep: Sweep) -> list[list[int]]:
    return [[moment.update for moment in stage.moments] for stage in sweep.trials[0].stages]


@pytest.mark.parametrize(
    ("moments", "updates"),
    [("updates: [3, 1, 100]", [1, 3]), ("every: 2", [2, 4]), ("every: 3", [3]), ("updates: [4]", [4])],
)
def test_moments_add_evaluations_and_change_no_key(tmp_path: Path, moments: str, updates: list[int]) -> None:
    sweep, plain = sweep_with(tmp_path, moments), load_sweep(write_sweep(tmp_path, LONGER))
    assert set(plain.steps) <= set(sweep.steps) and sweep.trials[0].key == plain.trials[0].key
    assert inside(sweep) == [[], updates, updates]
    more = [step for key, step in sweep.steps.items() if key not in plain.steps]
    early = [update for update in updates if update < 4]
    assert sum(isinstance(step, Snapshot) for step in more) == 2 * len(early)
    assert sum(isinstance(step, Evaluate) for step in more) == 2 * len(early) * 4, "targets and held-out alike"
    last = sweep.trials[0].stages[1].moments[-1]
    if last.update == 4:
        assert isinstance(last.checkpoint, Finetune), "the end of a stage without a merge is its own checkpoint"
        assert last.evaluations == sweep.trials[0].stages[1].evaluations


@pytest.mark.parametrize(
    ("moments", "why"),
    [
        ("updates: [5, 100]", "evaluation: updates: no stage has 5 updates; allowed: 1 to 4"),
        ("every: 5", "evaluation: every: no stage has 5 updates; allowed: 1 to 4"),
        ("updates: [1], every: 2", "updates and every both say when to evaluate inside a stage"),
        ("every: 0", "greater than 0"),
        ("updates: [0]", "greater than 0"),
    ],
)
def test_moments_that_no_stage_has_are_refused_at_the_door(tmp_path: Path, moments: str, why: str) -> None:
    with pytest.raises(UserError) as refused:
        sweep_with(tmp_path, moments)
    assert why in str(refused.value)


def test_a_plan_says_what_lies_beyond_a_stage(tmp_path: Path) -> None:
    plan = make_plan(sweep_with(tmp_path, "updates: [1, 9]"), Ledger(str(tmp_path / "store")))
    assert plan.notes[0] == "benchmarks are skipped after 9 updates of counting: its stage has 4"
    assert (plan.wanted["snapshot"], plan.wanted["evaluate"]) == (2, 4 * (3 + 2))


def test_where_the_data_are_elsewhere_the_record_tells_how_many_moments_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(sweep_with(tmp_path, "every: 2"), tmp_path / "store", questions=4, updates=4)
    ledger = Ledger(str(tmp_path / "store"))
    here = collect(sweep_with(tmp_path, "every: 2"), ledger).trials[0]
    monkeypatch.setattr("lmmcl.tasks.skills.Skill.missing", lambda self: "its data are elsewhere")
    there = collect(sweep_with(tmp_path, "every: 2"), ledger).trials[0]
    assert [row["update"] for row in here.stages[1].score_curve] == [0, 2, 4]
    assert [stage.score_curve for stage in there.stages] == [stage.score_curve for stage in here.stages]


def test_a_run_asks_inside_stages_and_every_report_tells_of_it(tmp_path: Path) -> None:
    sweep = sweep_with(tmp_path, "every: 2")
    store = str(tmp_path / "store")
    done = CliRunner().invoke(app, ["run", sweep.file, "--store", store, "--inline", "--mlflow", "off"])
    assert done.exit_code == 0, done.output
    assert "Best moment inside a stage" in done.output
    ledger = Ledger(store)
    assert sweep_status(sweep, ledger).recorded == len(sweep.steps)
    first, second = collect(sweep, ledger).trials[0].stages[1:]
    assert [row["update"] for row in first.score_curve] == [0, 2, 4]
    assert first.score_curve[0]["learning"] == 0 == first.score_curve[0]["held_out_forgetting"]
    for stage in (first, second):
        end = stage.score_curve[-1]
        assert {name: end[f"score/{name}"] for name in stage.scores} == pytest.approx(dict(stage.scores))
        assert end["learning"] == pytest.approx(stage.measures["learning"])
        assert end["held_out_forgetting"] == pytest.approx(stage.measures["held_out_forgetting"])
    assert second.score_curve[0]["score/counting"] == pytest.approx(first.scores["counting"]), (
        "a stage starts from the last"
    )
    told = CliRunner().invoke(app, ["report", sweep.file, "--store", store, "--format", "json", "--budget", "100"])
    stages = json.loads(told.stdout)["trials"][0]["stages"]
    assert [stage["best_moment"] is not None for stage in stages] == [False, True, True]
    frame = lmmcl.results(sweep, store=store).moments(budget=100)
    assert list(frame["update"]) == [0, 2, 4] * 2 and frame["best"].sum() == 2
