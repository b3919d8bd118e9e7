"""Every report says why a trial failed until the trial is run again."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_ledger import fill, finished_sweep, forget

from lmmcl.config.sweep import Sweep
from lmmcl.errors import UserError
from lmmcl.inspection.status import sweep_status
from lmmcl.ledger import Ledger
from lmmcl.reports.collect import collect
from lmmcl.reports.failures import find_failure, forget_failures, keep_failure, kept_failures
from lmmcl.reports.formatting import points_half
from lmmcl.reports.tables import export
from lmmcl.reports.tables.compare import compare_trials
from lmmcl.reports.tables.table import make_sheet, markdown_table

WHY = """2-clock-sa_proj (0123) was tried 4 times; the last time: the worker died
the end of its log:

step 3
Killed"""


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return finished_sweep(tmp_path)


@pytest.fixture
def ledger(sweep: Sweep) -> Ledger:
    """A store in which one trial failed in its last stage, with the end of a log; the others are done."""
    ledger = Ledger(str(Path(sweep.file).parent / "store"))
    forget(ledger, sweep.trials[1].stages[2])
    keep_failure(ledger, sweep.trials[1], WHY, "Traceback (most recent call last):\n  [frame]\nRuntimeError")
    return ledger


def test_what_is_kept_is_read_back_whole(sweep: Sweep, ledger: Ledger) -> None:
    failed = sweep.trials[1]
    (found,) = kept_failures(ledger, sweep.trials).values()
    assert (found.key, found.trial, found.why) == (failed.key, failed.name, WHY)
    assert found.details.startswith("Traceback") and found.details.endswith("RuntimeError")
    assert found.line == WHY.splitlines()[0]
    assert find_failure(ledger, failed.key[:6]) == find_failure(ledger, failed.name) == found
    assert find_failure(ledger, "another") is None and kept_failures(ledger, sweep.trials[2:]) == {}


def test_a_report_made_later_tells_the_same_as_that_of_the_run(sweep: Sweep, ledger: Ledger) -> None:
    later = collect(sweep, ledger)
    assert [trial.state for trial in later.trials] == ["done", "failed", "done", "done"]
    assert later.trials[1].error == WHY and later.trials == collect(sweep, ledger, {sweep.trials[1].key: WHY}).trials
    caption = "\n".join(make_sheet(later, points_half, "").caption)
    assert f"{sweep.trials[1].name}: {WHY.splitlines()[0]}" in caption and "lmmcl show" in caption
    assert "was tried 4 times" in markdown_table(later) and "Killed" in export.as_text(later, "json", 2.0)


def test_it_is_told_no_more_once_the_trial_is_run_again_or_done(sweep: Sweep, ledger: Ledger) -> None:
    forget_failures(ledger, sweep.trials[2:])
    assert kept_failures(ledger, sweep.trials)
    fill(sweep, Path(ledger.store), questions=4)
    assert collect(sweep, ledger).trials[1].state == "done"
    forget_failures(ledger, sweep.trials)
    assert kept_failures(ledger, sweep.trials) == {} and list(Path(ledger.store, "failures").iterdir()) == []


def test_a_comparison_that_cannot_be_made_says_which_trial_failed(sweep: Sweep, ledger: Ledger) -> None:
    with pytest.raises(UserError, match=r"sa_proj.*failed: 2-clock-sa_proj \(0123\) was tried 4 times"):
        compare_trials(sweep, ledger, sweep.trials[0].key, sweep.trials[1].key)
    empty = Ledger(f"{ledger.store}-empty")
    keep_failure(empty, sweep.trials[0], "out of memory", "")
    with pytest.raises(UserError, match="failed: out of memory"):
        compare_trials(sweep, empty, sweep.trials[0].key, sweep.trials[1].key)


def test_an_object_store_keeps_them_as_well(sweep: Sweep) -> None:
    ledger, trial = Ledger("memory://failures-of-a-test"), sweep.trials[0]
    assert kept_failures(ledger, sweep.trials) == {} and find_failure(ledger, trial.key) is None
    keep_failure(ledger, trial, WHY, "Traceback")
    assert kept_failures(ledger, sweep.trials)[trial.key].why == WHY
    assert sweep_status(sweep, ledger).trials[0].failed == WHY
    forget_failures(ledger, sweep.trials)
    assert find_failure(ledger, trial.name) is None
