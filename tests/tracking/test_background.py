from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from synthetic_results import make_trial

from lmmcl.back_off import BackOff
from lmmcl.reports.results import TrialResult
from lmmcl.tracking.background import BackgroundTracker, mlflow_errors

GONE = ConnectionError("connection refused")


class Recorder:
    """A tracker whose store can be out of order: takes `errors` one by one, then works."""

    def __init__(self, *errors: Exception, forever: Exception | None = None) -> None:
        self.errors, self.forever = list(errors), forever
        self.logged: list[tuple[str, int, bool]] = []
        self.reports: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, *_: Any) -> Recorder:
        return self

    def log_trial(self, trial: TrialResult, *, running: bool = True) -> str:
        self.gate.wait(10)
        if self.forever:
            raise self.forever
        if self.errors:
            raise self.errors.pop(0)
        self.logged.append((trial.key, len(trial.stages), running))
        return trial.key

    def log_report(self, files: Sequence[Path], note: str = "") -> str:
        self.reports += [file.name for file in files]
        return "report"


def start(recorder: Any) -> BackgroundTracker:
    return BackgroundTracker("http://mlflow.test", "s", connect=recorder, pauses=BackOff(0.01))


def test_every_trial_arrives_and_nothing_is_left_to_say() -> None:
    recorder = Recorder()
    tracker = start(recorder)
    for key in ("a", "b", "c"):
        tracker.put(make_trial(key=key, updates=0))
    end = tracker.close(20)
    assert [key for key, _, _ in recorder.logged] == ["a", "b", "c"]
    assert (end.trials, end.undelivered, end.message("x.yaml")) == (3, 0, None)


def test_only_the_newest_result_of_a_trial_is_logged() -> None:
    recorder = Recorder()
    recorder.gate.clear()
    tracker = start(recorder)
    tracker.put(make_trial(key="first", updates=0))
    time.sleep(0.05)
    for stages in (1, 2, 3):
        tracker.put(make_trial(key="a", stages=stages, updates=0))
    recorder.gate.set()
    tracker.close(20)
    assert recorder.logged == [("first", 6, True), ("a", 4, True)] or recorder.logged[-1][:2] == ("a", 4)
    assert len(recorder.logged) == 2


def test_a_dead_server_never_blocks_and_is_told_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    tracker = start(Recorder(forever=GONE))
    before = time.monotonic()
    for number in range(200):
        tracker.put(make_trial(key=str(number), stages=0, updates=0))
    assert time.monotonic() - before < 1.0
    with caplog.at_level(logging.WARNING):
        end = tracker.close(20)
    assert end.undelivered == end.trials == 200
    message = end.message("sweeps/x.yaml")
    assert "200 of 200 trials (connection refused)" in message
    assert "lmmcl report sweeps/x.yaml --mlflow http://mlflow.test" in message


def test_a_server_that_comes_back_gets_everything(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder(GONE, MlflowException("503"), GONE)
    tracker = start(recorder)
    with caplog.at_level(logging.WARNING):
        tracker.put(make_trial(key="a", updates=0))
        tracker.put(make_trial(key="b", updates=0))
        wait_until(lambda: len(recorder.logged) == 2)
    assert tracker.close(20).undelivered == 0
    assert sum("does not accept results" in record.message for record in caplog.records) == 1


def test_a_newer_result_is_not_replaced_by_one_that_failed() -> None:
    recorder = Recorder(GONE)
    recorder.gate.clear()
    tracker = start(recorder)
    tracker.put(make_trial(key="a", stages=1, updates=0))
    time.sleep(0.05)
    tracker.put(make_trial(key="a", stages=5, updates=0))
    recorder.gate.set()
    wait_until(lambda: recorder.logged)
    tracker.close(20)
    assert [stages for _, stages, _ in recorder.logged] == [6]


def test_a_result_that_will_never_be_taken_does_not_hold_up_the_others() -> None:
    recorder = Recorder(MlflowException("bad name", error_code=1000))  # INVALID_PARAMETER_VALUE
    tracker = start(recorder)
    tracker.put(make_trial(key="bad", updates=0))
    tracker.put(make_trial(key="good", updates=0))
    end = tracker.close(20)
    assert [key for key, _, _ in recorder.logged] == ["good"]
    assert (end.undelivered, end.reason) == (1, "bad name")


def test_closing_waits_no_longer_than_it_is_told() -> None:
    recorder = Recorder()
    recorder.gate.clear()
    tracker = start(recorder)
    tracker.put(make_trial(key="a", updates=0))
    before = time.monotonic()
    end = tracker.close(0.2)
    assert time.monotonic() - before < 2.0
    assert end.undelivered == 1 and "no time left" in end.message("x.yaml")
    recorder.gate.set()


def test_a_tracker_that_keeps_taking_results_is_waited_for_however_long_it_takes() -> None:
    mlflow_errors()  # imports MLflow, which takes longer than a result here
    recorder = Recorder()
    logged = recorder.log_trial

    def slowly(trial: TrialResult, *, running: bool = True) -> str:
        time.sleep(0.1)
        return logged(trial, running=running)

    recorder.log_trial = slowly  # type: ignore[method-assign]
    tracker = start(recorder)
    for number in range(8):
        tracker.put(make_trial(key=str(number), stages=0, updates=0))
    assert tracker.close(0.3).undelivered == 0


def test_finished_trials_are_not_kept_nor_draws_of_any() -> None:
    recorder = Recorder()
    tracker = start(recorder)
    draws = {"learning": np.zeros(1000)}
    for number in range(5):
        tracker.put(replace(make_trial(key=str(number), stages=1, updates=0), draws=draws))
    tracker.put(replace(make_trial(key="open", stages=1, updates=0), state="partial", draws=draws))
    wait_until(lambda: len(recorder.logged) == 6)
    held = [thing for thing in vars(tracker).values() if isinstance(thing, dict)]
    assert [trial.key for results in held for trial in results.values()] == ["open"]
    assert all(not trial.draws for results in held for trial in results.values())
    end = tracker.close(20)
    assert (end.trials, end.undelivered, recorder.logged[-1]) == (6, 0, ("open", 2, False))


def test_a_trial_that_did_not_end_is_logged_as_stopped_and_the_report_follows(tmp_path: Path) -> None:
    recorder = Recorder()
    tracker = start(recorder)
    partial = replace(make_trial(key="a", stages=2, updates=0), state="partial")
    tracker.put(partial)
    wait_until(lambda: recorder.logged)
    tracker.close(20, [tmp_path / "page.html"])
    assert recorder.logged == [("a", 3, True), ("a", 3, False)]
    assert recorder.reports == ["page.html"]


@pytest.mark.parametrize("error", [GONE, MlflowException("no such artifacts"), RuntimeError("a fault of our own")])
def test_a_report_that_did_not_arrive_is_told_too(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()

    def refuse(files: Sequence[Path], note: str = "") -> str:
        raise error

    monkeypatch.setattr(recorder, "log_report", refuse)
    tracker = start(recorder)
    tracker.put(make_trial(key="a", updates=0))
    end = tracker.close(20, [Path("index.html")])
    assert end.undelivered == 0
    assert f"did not accept the report ({error})" in str(end.message("x.yaml"))


def test_a_fault_of_our_own_is_told_and_does_not_reach_the_sweep(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        tracker = start(Recorder(forever=ZeroDivisionError("oops")))
        tracker.put(make_trial(key="a", updates=0))
        end = tracker.close(20)
    assert end.undelivered == 1 and end.reason == "oops"
    assert any(record.exc_info for record in caplog.records)


def test_a_dead_server_of_http_is_given_up_in_bounded_time_with_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    tracker = BackgroundTracker(uri, "s")
    tracker.put(make_trial(updates=0))
    end = tracker.close(20)
    assert end.undelivered == 1 and end.reason.endswith("Connection refused") and len(end.reason) < 80


def wait_until(true: Any, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)
