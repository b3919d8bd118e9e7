"""Scores are read into the cell of the step that asked for them, whatever else its record says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from synthetic_ledger import finished_sweep

from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.reports.collect import score_matrix
from lmmcl.search.progress import SweepProgress


def change(folder: Path, **fields: Any) -> tuple[Any, Ledger]:
    """A trial of a finished sweep, the first record of whose first stage was changed, and the store."""
    trial = finished_sweep(folder).trials[0]
    record = folder / "store" / trial.stages[1].evaluations[0].path / "record.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | fields))
    return trial, Ledger(str(folder / "store"))


@pytest.mark.parametrize("label", ["colour", "unknown"])
def test_a_record_with_another_label_counts_for_the_benchmark_that_was_asked(tmp_path: Path, label: str) -> None:
    trial, ledger = change(tmp_path, label=label, sample_scores=[1.0, 1.0, 1.0, 1.0])
    asked = trial.stages[1].evaluations[0].benchmark.name
    assert asked != label and score_matrix(trial, ledger).score(1, asked) == 100.0
    assert len(SweepProgress(ledger.find).measures(trial)) == len(trial.stages)


@pytest.mark.parametrize("scores", [[1.0, 0.0], [], [-1.0, 0.0, 0.0, 1.0]])
def test_scores_that_do_not_go_with_those_of_other_stages_are_refused_with_the_place(
    tmp_path: Path, scores: list[float]
) -> None:
    trial, ledger = change(tmp_path, sample_scores=scores)
    with pytest.raises(UserError, match=r"stage 1, benchmark .* to have it computed again"):
        score_matrix(trial, ledger)
