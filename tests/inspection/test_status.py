"""How far a sweep is, as told beside it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from synthetic_ledger import fill, finished_sweep, forget

from lmmcl.config.sweep import Sweep
from lmmcl.inspection.status import headline, status_table, sweep_status, watch
from lmmcl.ledger import Ledger
from lmmcl.reports.failures import keep_failure


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return finished_sweep(tmp_path)


@pytest.fixture
def ledger(sweep: Sweep) -> Ledger:
    return Ledger(str(Path(sweep.file).parent / "store"))


def drawn(status, most: int | None = None) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(status_table(status, most))
    return console.file.getvalue()


def test_a_finished_sweep_has_no_time_left(sweep: Sweep, ledger: Ledger) -> None:
    assert headline(sweep_status(sweep, ledger)) == "small: 45 of 45 steps recorded; 4 trials (4 done)"


def test_time_left_is_what_like_steps_took(sweep: Sweep, ledger: Ledger) -> None:
    forget(ledger, sweep.trials[0].stages[2])
    status = sweep_status(sweep, ledger)
    assert status.seconds_left == pytest.approx(60 + 4 * 1)  # a fine-tune and four benchmarks
    assert "about 1m04s left" in headline(status) and "●●○" in drawn(status)


def test_nothing_is_guessed_before_there_is_a_step_of_each_kind(sweep: Sweep, tmp_path: Path) -> None:
    status = sweep_status(sweep, Ledger(str(tmp_path / "empty")))
    assert status.seconds_left is None and "ETA unknown" in headline(status)


def test_a_failed_trial_says_why_until_it_is_done(sweep: Sweep, ledger: Ledger) -> None:
    for trial in sweep.trials[:2]:
        keep_failure(ledger, trial, "out of memory [rank 0]\nthe end of its log: Killed", "Traceback")
    forget(ledger, sweep.trials[0].stages[2])
    status = sweep_status(sweep, ledger)
    assert [trial.failed for trial in status.trials] == [
        "out of memory [rank 0]\nthe end of its log: Killed",
        *[None] * 3,
    ]
    assert f"clock failed: out of memory [rank 0] (lmmcl show {sweep.trials[0].key[:8]})" in drawn(
        status
    ) and "1 failed" in headline(status)


def test_a_long_sweep_shows_what_is_not_done_first(sweep: Sweep, ledger: Ledger) -> None:
    forget(ledger, sweep.trials[3].stages[2])
    text = drawn(sweep_status(sweep, ledger), 1)
    assert sweep.trials[3].name in text and sweep.trials[0].name not in text and "3 more trials" in text


def test_watching_tells_each_change_and_ends_with_the_sweep(sweep: Sweep, ledger: Ledger) -> None:
    forget(ledger, sweep.trials[0].stages[2])
    console, waits = Console(file=io.StringIO(), width=140), []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            fill(sweep, Path(ledger.store), questions=4)

    status = watch(sweep, ledger, console, every=2.0, sleep=sleep)
    lines = console.file.getvalue().splitlines()
    assert waits == [2.0] * 3 and status.recorded == status.wanted
    assert len(lines) == 2 and "40 of 45" in lines[0] and "45 of 45" in lines[1]
