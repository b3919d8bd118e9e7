"""What a run reports: failures in a store that takes no text, commands that can be pasted."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made import made_trial, write_sweep
from pretended import Pretence, pretence, run  # noqa: F401 - a fixture
from rich.console import Console

from lmmcl.config.sweep import Sweep
from lmmcl.ledger import Ledger
from lmmcl.ledger.store import StoreError
from lmmcl.runner.display import Display
from lmmcl.runner.run import ProgressReporter
from lmmcl.search.run_context import RunContext
from lmmcl.tracking.background import Delivery


@pytest.mark.parametrize("error", [StoreError("cannot be reached"), OSError(28, "No space left on device")])
def test_a_failure_whose_text_cannot_be_kept_is_shown_and_remembered(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise error

    monkeypatch.setattr(Ledger, "keep_text", refuse)
    ledger, trial, out = Ledger(str(tmp_path)), made_trial(), io.StringIO()
    with Display([trial], Console(file=out, width=140)) as display, caplog.at_level(logging.WARNING):
        context = RunContext.resolve(Sweep("made", "", "made.yaml", (trial,)), ledger)
        following = ProgressReporter(context, display, None)
        following.trial_failed(trial, "the loss is not finite", "traceback")
    assert following.failures == {trial.key: "the loss is not finite"}
    assert "the loss is not finite" in out.getvalue()
    assert str(error) in caplog.text


def test_a_store_that_is_away_when_mlflow_is_told_ends_no_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise StoreError("cannot be reached")

    ledger, trial, put = Ledger(str(tmp_path)), made_trial(), list[Any]()
    tracker = SimpleNamespace(put=put.append)
    with Display([trial], Console(file=io.StringIO())) as display, caplog.at_level(logging.WARNING):
        context = RunContext.resolve(Sweep("made", "", "made.yaml", ()), ledger)
        following = ProgressReporter(context, display, tracker)  # type: ignore[arg-type]
        with monkeypatch.context() as patch:
            patch.setattr(Ledger, "find", away)
            following.stage_done(trial, {"stage": 0})
        assert put == [] and "cannot be reached" in caplog.text
        following.stage_done(trial, {"stage": 0})
    assert [result.key for result in put] == [trial.key]


def test_a_run_tells_of_a_batch_of_more_examples_than_there_are(
    tmp_path: Path,
    pretence: Pretence,  # noqa: F811
) -> None:
    sweep = write_sweep(tmp_path)
    told = run(sweep, "--set", "training.global_batch_size=128").stdout
    assert told.count("note: counting has 64 training examples and global_batch_size is 128") == 1
    assert "note:" not in run(sweep).stdout


def test_steps_that_another_run_recorded_meanwhile_are_not_counted_as_computed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pretence: Pretence,  # noqa: F811
) -> None:
    sweep = write_sweep(tmp_path)
    ledger = Ledger(str(tmp_path / "store"))

    def another_is_faster(step: Any) -> None:
        if step.kind == "finetune" and step.depth == 2:
            with monkeypatch.context() as patch, ledger.writing(step) as draft:
                patch.setattr("lmmcl.ledger.pending_record.computed_by", lambda: "another/1")
                draft.commit({"seconds": 1.0})

    pretence.breaks = another_is_faster
    assert "41 steps computed, 4 by other runs meanwhile, 0 recorded before" in run(sweep).stdout
    assert "0 steps computed, 45 recorded before" in run(sweep).stdout


def test_the_command_that_fills_mlflow_later_is_of_the_same_trials(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pretence: Pretence,  # noqa: F811
) -> None:
    sweep = write_sweep(tmp_path)
    away = SimpleNamespace(
        tracker="", put=lambda trial: None, close=lambda report: Delivery("http://away", 2, 2, "refused")
    )
    monkeypatch.setattr("lmmcl.runner.trackers._background", lambda *_: away)
    told = run(sweep, "--set", "grids[0].recipe=[sa_proj]", "--mlflow", "http://away").stdout
    again = f"lmmcl report {sweep} --set 'grids[0].recipe=[sa_proj]' --store {tmp_path / 'store'} --mlflow http://away"
    assert again in told
