"""A damaged file of rows is reported, and does not break the report of the sweep."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from synthetic_ledger import finished_sweep

from lmmcl.config.sweep import Sweep
from lmmcl.ledger import Ledger
from lmmcl.ledger.record import DamagedError
from lmmcl.reports.collect import collect
from lmmcl.reports.flips import sweep_flips
from lmmcl.reports.page.page_answers import page_answers
from lmmcl.search.run_context import RunContext
from lmmcl.steps import Step
from lmmcl.tracking.extras import Answers


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return finished_sweep(tmp_path)


@pytest.fixture
def ledger(sweep: Sweep) -> Ledger:
    return Ledger(str(Path(sweep.file).parent / "store"))


def damage(ledger: Ledger, step: Step, name: str) -> None:
    """Have the record say that other bytes were written."""
    file = Path(ledger.store, step.path, "record.json")
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "files": {name: {"sha256": "0" * 64, "bytes": 1}}}))


def test_a_report_goes_on_without_a_damaged_curve_and_says_so_once(
    sweep: Sweep, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    damage(ledger, sweep.trials[0].stages[1].checkpoint, "curve.jsonl")
    with caplog.at_level(logging.WARNING):
        stages = collect(sweep, ledger).trials[0].stages
        collect(sweep, ledger)
    assert not stages[1].curve and stages[2].curve and stages[1].scores
    assert caplog.text.count("curve.jsonl") == 1 and "lmmcl ledger check --repair" in caplog.text


def test_damaged_answers_are_left_out_of_page_and_mlflow_and_refused_where_they_are_asked_for(
    sweep: Sweep, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    trial = sweep.trials[0]
    results = collect(sweep, ledger)
    for each in sweep.trials:
        asked = next(step for step in each.stages[2].evaluations if step.benchmark.name == "colour")
        damage(ledger, asked, "samples.jsonl")
    with caplog.at_level(logging.WARNING):
        shown = page_answers(RunContext.resolve(sweep, ledger), results).blocks
        _, tables = Answers(RunContext.resolve(sweep, ledger)).extras(results.trials[0])
    assert "samples.jsonl" in caplog.text
    colour = next(block for block in shown if block["name"] == "colour")
    assert all([number for number, _, _ in run["stages"]] == [0, 1] for run in colour["runs"])
    asked = {row[0] for row in json.loads(tables["samples.json"])["data"]}
    assert asked == {benchmark.name for benchmark in trial.benchmarks} - {"colour"}
    with pytest.raises(DamagedError, match=r"samples\.jsonl"):
        sweep_flips(sweep, ledger, "colour")
