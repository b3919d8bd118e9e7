"""Probes inside stages: what the table of a report averages over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from made import write_sweep
from synthetic_ledger import fill
from synthetic_results import make_trial

from lmmcl.config.sweep import load_sweep
from lmmcl.ledger import Ledger
from lmmcl.reports.collect import collect
from lmmcl.reports.inside import inside_rows
from lmmcl.reports.results import SweepResults, TrialResult

SWEEP = """
name: merged
orders: {main: [counting]}
benchmarks: {held_out: [colour]}
grids:
  - {model: [tiny-onevision], recipe: [llm, sa_proj]}
  - {model: [tiny-onevision], recipe: [llm], mitigation: [{wise_ft: {alpha: 0.5}}, {wise_ft: {alpha: 0.9}}]}
"""


def probed(recipe: str, mitigation: str | None, trained: str, *, start: float, end: float | None = None) -> TrialResult:
    """A trial of one stage with one probe, which has looked at its start and, where given, at its end (update 2)."""
    trial = make_trial(recipe, mitigation=mitigation, stages=1, updates=2)
    rows = [{"update": at, "token/mean": value} for at, value in ((0, start), (2, end)) if value is not None]
    taught = replace(trial.stages[1], probe_curve=rows, trained_key=trained)
    return replace(trial, stages=[trial.stages[0], taught])


def test_a_fine_tune_that_is_merged_in_several_ways_counts_once() -> None:
    trials = [
        probed("llm", "wise_ft(alpha=0.5)", "shared", start=0.9),
        probed("llm", None, "shared", start=0.9, end=0.7),
        probed("llm", "wise_ft(alpha=0.9)", "shared", start=0.9),
        probed("sa_proj", None, "other", start=0.1, end=0.3),
    ]
    assert inside_rows(SweepResults("s", trials)) == (
        ["start", "end"],
        [("birds", "token/mean", {"start": 0.5, "end": 0.5})],
    )


def test_a_merge_s_stage_is_known_by_the_fine_tune_that_it_merged(tmp_path: Path) -> None:
    sweep = load_sweep(write_sweep(tmp_path, SWEEP))
    fill(sweep, tmp_path / "store", questions=4, updates=2)
    trials = collect(sweep, Ledger(str(tmp_path / "store"))).trials
    llm, sa_proj, half, most = (trial.stages[1] for trial in trials)
    assert llm.trained_key == llm.checkpoint_key == half.trained_key == most.trained_key
    assert len({stage.checkpoint_key for stage in (llm, sa_proj, half, most)}) == 4
    assert sa_proj.trained_key != llm.trained_key and trials[0].stages[0].trained_key is None


INSIDE = "probes: [{number_bias: {examples: 4, updates: [1, 2, 9]}}]\n"
TWO_UPDATES = "training: {examples: 64, global_batch_size: 32}\n"


def test_where_the_data_are_elsewhere_a_merged_stage_is_told_to_its_last_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_sweep(tmp_path, SWEEP + TWO_UPDATES + INSIDE)
    fill(load_sweep(path), tmp_path / "store", questions=4, updates=2)
    here = collect(load_sweep(path), Ledger(str(tmp_path / "store"))).trials
    monkeypatch.setattr("lmmcl.tasks.skills.Skill.missing", lambda self: "its data are elsewhere")
    there = collect(load_sweep(path), Ledger(str(tmp_path / "store"))).trials
    for trial, other in zip(here, there, strict=True):
        assert [row["update"] for row in trial.stages[1].probe_curve] == [0, 1, 2]
        assert trial.stages[1].probe_curve == other.stages[1].probe_curve


def test_a_trial_that_a_budget_ends_afterwards_tells_only_the_stages_that_it_walks(tmp_path: Path) -> None:
    longer = SWEEP.replace("[counting]", "[counting, clock, birds]") + TWO_UPDATES + INSIDE
    path = write_sweep(tmp_path, longer)
    fill(load_sweep(path), tmp_path / "store", questions=4, updates=2)
    ledger = Ledger(str(tmp_path / "store"))
    whole = collect(load_sweep(path), ledger)
    assert {skill for skill, _, _ in inside_rows(whole)[1]} == {"counting", "clock", "birds"}
    ended = collect(load_sweep(path, ["search.stop={learning: {below: 101}}"]), ledger)
    assert [trial.state for trial in ended.trials] == ["stopped"] * 4
    assert all([stage.number for stage in trial.stages] == [0, 1] for trial in ended.trials)
    assert {skill for skill, _, _ in inside_rows(ended)[1]} == {"counting"}
    for trial, other in zip(ended.trials, whole.trials, strict=True):
        assert trial.stages[1].probe_curve == other.stages[1].probe_curve
