"""A trial that fails for good, as a person meets it: in the run, in what reports say later, and when it is run again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from made import write_sweep
from pretended import SEARCH, Pretence, lmmcl, pretence, run, told  # noqa: F401

from lmmcl.config.sweep import load_sweep
from lmmcl.errors import UserError
from lmmcl.ledger.owners import private_name
from lmmcl.ledger.pending_record import PARTIAL
from lmmcl.steps import Checkpoint

WHY = "the worker died\nthe end of its log:\n  step 41\n\nKilled"


def test_a_trial_that_fails_is_told_with_the_end_of_its_log_everywhere_and_no_more_once_it_is_run_again(
    tmp_path: Path,
    pretence: Pretence,  # noqa: F811
) -> None:
    path = write_sweep(tmp_path, SEARCH)
    doomed, *others = load_sweep(path).trials
    store = ("--store", str(tmp_path / "store"))

    def breaks(step: Checkpoint) -> None:
        if step.key == doomed.stages[2].checkpoint.key:
            raise RuntimeError(WHY)

    pretence.breaks = breaks
    result = run(path)
    assert result.exit_code == 1 and f"failed: {doomed.name}: RuntimeError: {WHY}" in result.output
    assert "failed  1 trial;" in result.output and "tracebacks in" in result.output

    reported = {trial["key"]: trial for trial in told("report", path)["trials"]}
    assert (reported[doomed.key]["state"], reported[doomed.key]["error"]) == ("failed", f"RuntimeError: {WHY}")
    assert {reported[trial.key]["state"] for trial in others} == {"done"}
    status = {trial["key"]: trial for trial in told("status", path)["trials"]}
    assert status[doomed.key]["failed"] == f"RuntimeError: {WHY}" and status[doomed.key]["stages_done"] == 2
    shown = lmmcl("show", doomed.key[:8], *store).stdout
    assert (
        "step 41" in shown and "Killed" in shown and "Traceback (most recent call last)" in shown and "breaks" in shown
    )
    with pytest.raises(UserError, match="failed: RuntimeError: the worker died"):
        lmmcl("compare", path, doomed.name, others[0].name, *store)

    def looks(step: Checkpoint) -> None:
        assert told("status", path)["trials"][0]["failed"] is None, "it is run again: not failed yet"

    pretence.breaks = looks
    assert run(path).exit_code == 0
    assert {trial["state"] for trial in told("report", path)["trials"]} == {"done"}
    assert not list((tmp_path / "store" / "failures").iterdir())


def test_what_a_run_that_was_killed_beside_this_one_left_goes_with_the_end(
    tmp_path: Path,
    pretence: Pretence,  # noqa: F811
) -> None:
    path, store = write_sweep(tmp_path, SEARCH), tmp_path / "store"
    first = load_sweep(path).trials[0]
    trained, last = (first.stages[number].checkpoint for number in (1, 2))
    gone = private_name(last.key).replace(str(os.getpid()), "999999999")

    def dies_beside(step: Checkpoint) -> None:
        if step.key == last.key:
            (store / PARTIAL / f"{gone}x").mkdir(parents=True)
            (store / "runs" / trained.key / "checkpoint-10").mkdir(parents=True)

    pretence.breaks = dies_beside
    result = run(path)
    assert result.exit_code == 0, result.output
    assert not [*(store / PARTIAL).iterdir(), *(store / "runs").iterdir()]
