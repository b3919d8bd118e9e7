"""What a stage keeps for being resumed lies apart for each store, and its removal hides no error."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from made import made_trial

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.ledger import Ledger
from lmmcl.ledger.store import Store, StoreError
from lmmcl.training import finetune as module

STEP = made_trial().stages[1].checkpoint


def test_two_stores_that_are_elsewhere_share_nothing_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    one, other = Ledger("memory://one"), Ledger("memory://other")
    assert module.runs_folder(one, STEP) != module.runs_folder(other, STEP)
    assert module.runs_folder(one, STEP).is_relative_to(one.node.folder)
    assert module.runs_folder(Ledger(str(tmp_path)), STEP) == tmp_path / "runs" / STEP.key


def test_a_store_that_is_away_does_not_hide_why_a_stage_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def away(*_: Any) -> None:
        raise StoreError("cannot be reached")

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA error")

    monkeypatch.setattr(Store, "remove_folder", away)
    monkeypatch.setattr(module, "train_stage", broken)
    with caplog.at_level(logging.WARNING), pytest.raises(RuntimeError, match="CUDA error"):
        module.finetune(STEP, Ledger("memory://away"), TrainingPlacement(workers=0))
    assert "could not be removed: cannot be reached" in caplog.text
