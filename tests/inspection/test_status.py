"""How far a sweep is, as told beside it."""

from __future__ import annotations

import io
import re
import shutil
import time
from pathlib import Path

import pytest
from made import SWEEP, write_sweep
from rich.console import Console
from synthetic_ledger import fill, finished_sweep, forget

from lmmcl.config.cluster import ClaimSettings
from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.inspection.status import headline, status_view, sweep_status
from lmmcl.inspection.watching import watch
from lmmcl.ledger import Ledger, leases
from lmmcl.ledger.leases import Leases
from lmmcl.reports.failures import keep_failure


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return finished_sweep(tmp_path)


@pytest.fixture
def ledger(sweep: Sweep) -> Ledger:
    return Ledger(str(Path(sweep.file).parent / "store"))


def drawn(status, most: int | None = None) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(status_view(status, most))
    return console.file.getvalue()


def test_a_finished_sweep_has_no_time_left(sweep: Sweep, ledger: Ledger) -> None:
    assert headline(sweep_status(sweep, ledger)) == "small: 45 of 45 steps recorded; 4 trials (4 done)"


def test_time_left_is_what_like_steps_took(sweep: Sweep, ledger: Ledger) -> None:
    forget(ledger, sweep.trials[0].stages[2])
    status = sweep_status(sweep, ledger)
    assert status.seconds_left == pytest.approx(60 + 4 * 1)  # a fine-tune and four benchmarks
    assert "about 1m05s left" in headline(status) and "●●○" in drawn(status)


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
    assert "gate_up · lr 3e-4" in text and "sa_proj" not in text and "and 3 more trials (3 done)" in text
    assert "all trials: tiny-onevision · s0" in text


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


def test_a_watching_log_says_within_half_a_minute_what_is_done_though_nothing_changes(
    sweep: Sweep, ledger: Ledger
) -> None:
    forget(ledger, stage := sweep.trials[0].stages[2])
    console, now = Console(file=io.StringIO(), width=140), [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] >= 60:
            fill(sweep, Path(ledger.store), questions=4)

    with Leases(ledger.files, ClaimSettings()).held([stage.checkpoint.key]):
        watch(sweep, ledger, console, sleep=sleep, now=lambda: now[0])
    lines = console.file.getvalue().splitlines()
    assert (
        len(lines) == 4
        and all(re.search(r"clock: working \(for \d+:\d\d", line) for line in lines[:3])
        and "45 of 45" in lines[3]
    )


def test_status_tells_what_a_worker_does_and_since_when_from_its_lease(
    sweep: Sweep, ledger: Ledger, monkeypatch
) -> None:
    monkeypatch.setattr(leases, "NOTE_SECONDS", 0.02)
    forget(ledger, stage := sweep.trials[0].stages[2])
    with Leases(ledger.files, ClaimSettings()).held([step.key for step in stage.evaluations]) as held:
        held.note = {"benchmark": "clock", "asked": 1, "benchmarks": 4}
        end = time.monotonic() + 20
        while "evaluating clock (1/4)" not in drawn(status := sweep_status(sweep, ledger)) and time.monotonic() < end:
            time.sleep(0.05)
    (work,) = status.working
    assert (work.stage, work.trials) == ("clock", (sweep.trials[0].name,)), "four leases of one worker are one line"
    assert work.seconds is not None and 0 <= work.seconds < 30 and work.host
    assert "clock (running)" in drawn(status) and status.to_dict()["working"][0]["doing"] == "evaluating clock (1/4)"
    assert not sweep_status(sweep, ledger).working, "nobody works any more"


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_status_is_as_wide_as_the_terminal(sweep: Sweep, ledger: Ledger, width: int) -> None:
    keep_failure(ledger, sweep.trials[1], "out of memory: tried to take 20 GiB of a GPU that has 4 left", "Traceback")
    for trial in sweep.trials[:2]:
        forget(ledger, trial.stages[2])
    console = Console(file=io.StringIO(), width=width)
    console.print(status_view(sweep_status(sweep, ledger)))
    lines = console.file.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    assert all(told in "".join(lines) for told in ("●●○", "learning", "held-out", "next:", "done", "left"))


MERGED = SWEEP.replace(
    "recipe: [sa_proj, gate_up], learning_rate: [1.0e-3, 3.0e-4]",
    "recipe: [sa_proj], mitigation: [[wise_ft, grafting], {wise_ft: {alpha: 0.2}}, {wise_ft: {alpha: 0.4}}, {wise_ft: {alpha: 0.6}}]",
)


def test_trials_that_wait_for_one_step_do_not_divide_the_time_left_and_all_run(tmp_path: Path) -> None:
    sweep, ledger = load_sweep(write_sweep(tmp_path, MERGED)), Ledger(str(tmp_path / "store"))
    fill(sweep, tmp_path / "store", questions=4)
    for trial in sweep.trials:
        forget(ledger, trial.stages[1])
    tuned = sweep.trials[0].stages[1].tuned
    assert tuned is not None and all(tuned.key in trial.steps() for trial in sweep.trials)
    shutil.rmtree(ledger.files.at(tuned.path))
    idle = sweep_status(sweep, ledger).seconds_left
    with Leases(ledger.files, ClaimSettings()).held([tuned.key]):
        status = sweep_status(sweep, ledger)
    assert len(status.working) == 1 and idle and status.seconds_left == idle
    assert [trial.running for trial in status.trials] == [True] * 4, "two merges in a row start from the same fine-tune"
