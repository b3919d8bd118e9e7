"""Trackers beside a running sweep: never waited for, never the reason that a sweep fails.

A thread takes the newest result of each trial, imports MLflow (seconds; the first use of a database longer still), and logs.
While the store does not answer it waits and tries again; what is not delivered at the end can be filled from the ledger. Other
trackers have a thread each.
"""

from __future__ import annotations

import logging
import shlex
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lmmcl.back_off import BackOff
from lmmcl.errors import UserError
from lmmcl.masking import mask
from lmmcl.reports import formatting
from lmmcl.reports.results import TrialResult
from lmmcl.tracking.sweep_identity import SweepIdentity
from lmmcl.tracking.tracker import Tracker
from lmmcl.weights.freed_memory import collection_paused

log = logging.getLogger(__name__)

PAUSES = BackOff(longest=60.0)
#: Answers that another attempt will not change.
FINAL = {"INVALID_PARAMETER_VALUE", "PERMISSION_DENIED", "BAD_REQUEST", "FEATURE_DISABLED"}


class LogsTrials(Protocol):
    """What the thread needs of a Tracker."""

    def log_trial(self, trial: TrialResult, *, running: bool = True) -> str: ...

    def log_report(self, files: Sequence[Path], note: str = "") -> str: ...


@runtime_checkable
class Closes(Protocol):
    """A tracker that holds something until it is closed."""

    def close(self) -> None:
        """End it, once it has written what it was given."""
        ...


@dataclass(frozen=True)
class Delivery:
    """How the logging of a sweep ended; `report` says whether its report, if it has one, arrived.

    `tracker` is the name of one beside MLflow; `uri` is MLflow's, `address` what follows it to open the trials, and
    `experiment` what the sweep is called there.
    """

    uri: str
    trials: int
    undelivered: int
    reason: str | None
    report: bool = True
    tracker: str = ""
    address: str = ""
    experiment: str = ""

    def message(self, sweep: str) -> str | None:
        """What to tell the user, or None when all is there; `sweep` is the file, with options that are to be given again."""
        left = [f"{self.undelivered} of {formatting.plural(self.trials, 'trial')}"] if self.undelivered else []
        left += [] if self.report else ["the report"]
        if not left:
            return None
        uri = mask(self.uri)
        where, name = (self.tracker, self.tracker) if self.tracker else (f"MLflow at {uri}", "MLflow")
        option = f"--tracking {self.tracker}" if self.tracker else f"--mlflow {shlex.quote(uri)}"
        return (
            f"{where} did not accept {' and '.join(left)} ({self.reason or 'no time left'}); no result is lost; "
            f"to fill {name} later: lmmcl report {sweep} {option}"
        )


class BackgroundTracker:
    """Hands results to a Tracker on a thread of its own. `put` returns at once, whatever the store does."""

    def __init__(
        self,
        uri: str,
        sweep: str | SweepIdentity,
        artifact_location: str | None = None,
        *,
        connect: Callable[[str, Any, str | None], LogsTrials] = Tracker,
        pauses: BackOff = PAUSES,
        tracker: str = "",
    ) -> None:
        self.uri, self.tracker = uri, tracker
        self._connect = lambda: connect(uri, sweep, artifact_location)
        self._pauses = pauses
        self._tracker: LogsTrials | None = None
        self._changed = threading.Condition()
        self._waiting: OrderedDict[str, TrialResult] = OrderedDict()
        self._unfinished: dict[str, TrialResult] = {}
        self._keys: set[str] = set()
        self._refused: dict[str, str] = {}
        self._in_hand: str | None = None
        self._reason: str | None = None
        self._report: list[Path] = []
        self._reported = False
        self._note = ""
        self._where = ("", "")
        self._closing = False
        self._taken = 0
        self._thread = threading.Thread(target=self._work, name="lmmcl-mlflow", daemon=True)
        self._thread.start()

    def put(self, trial: TrialResult) -> None:
        """Have the trial logged as it stands now; a result of the same trial that still waits is replaced.

        Finished trials are not kept once they are logged, nor draws, which nobody logs: a sweep may have thousands.
        """
        trial = replace(trial, draws={})
        with self._changed:
            self._waiting[trial.key] = trial
            self._keys.add(trial.key)
            if trial.state == "partial":
                self._unfinished[trial.key] = trial
            else:
                self._unfinished.pop(trial.key, None)
            self._refused.pop(trial.key, None)
            self._changed.notify()

    def close(self, timeout: float = 60.0, report: Sequence[Path] = (), note: str = "") -> Delivery:
        """Wait for what is left, log the report's files, and say what did not arrive.

        A tracker that has taken nothing for `timeout` seconds is not waited for: a large sweep may need minutes, a server that
        hangs would need forever. A trial that did not end by now is shown as KILLED. After the first failed attempt nothing more
        is tried.
        """
        with self._changed:
            for key, trial in self._unfinished.items():
                self._waiting.setdefault(key, trial)
            self._report, self._note = list(report), note
            self._closing = True
            self._changed.notify()
        self._wait_for_thread(timeout)
        with self._changed:
            left = {*self._waiting, *self._refused, *([self._in_hand] if self._in_hand else [])}
            reason = next(iter(self._refused.values()), self._reason)
            arrived = not report or self._reported
            return Delivery(self.uri, len(self._keys), len(left), reason, arrived, self.tracker, *self._where)

    def _wait_for_thread(self, timeout: float) -> None:
        taken = -1
        while self._thread.is_alive() and taken != self._taken:
            taken = self._taken
            self._thread.join(timeout)

    def _work(self) -> None:
        failures = 0
        try:
            while (trial := self._next()) is not None:
                if self._attempt(partial(self._log, trial), trial):
                    failures = 0
                    self._taken += 1
                elif self._closing:
                    return
                else:
                    failures += 1
                    self._pause(self._pauses.pause(failures))
            if self._report:
                self._attempt(self._log_report)
        except Exception as error:  # a sweep of days does not end because of its bookkeeping
            self._reason = _line(error)
            log.exception(
                "logging to %s has stopped; `lmmcl report SWEEP --%s` fills it later",
                *((self.tracker, f"tracking {self.tracker}") if self.tracker else ("MLflow", "mlflow URI")),
            )
        finally:
            self._release()

    def _release(self) -> None:
        """Let go of the tracker; one that is a process of its own ends."""
        tracker, self._tracker = self._tracker, None
        if isinstance(tracker, Closes):
            tracker.close()

    def _log(self, trial: TrialResult, tracker: LogsTrials) -> None:
        tracker.log_trial(trial, running=not self._closing)

    def _log_report(self, tracker: LogsTrials) -> None:
        tracker.log_report(self._report, self._note)
        self._reported = True

    def _next(self) -> TrialResult | None:
        """The trial that has waited longest; None when all is delivered and no more will come."""
        with self._changed:
            self._in_hand = None
            while not self._waiting and not self._closing:
                self._changed.wait()
            if not self._waiting:
                return None
            self._in_hand, trial = self._waiting.popitem(last=False)
            return trial

    def _attempt(self, action: Callable[[LogsTrials], object], trial: TrialResult | None = None) -> bool:
        """Whether the store took it, or will never take it; if it may later, the trial goes back among the waiting."""
        expected = (OSError, UserError) if self.tracker else mlflow_errors()
        try:
            if self._tracker is None:
                self._tracker = self._connect()
                self._where = _where(self._tracker)
            action(self._tracker)
        except expected as error:
            self._release()  # what it remembers may not be so any longer
            final = getattr(error, "error_code", None) in FINAL
            self._failed(_line(error), trial, final)
            return final
        return True

    def _failed(self, reason: str, trial: TrialResult | None, final: bool) -> None:
        if self._reason is None:
            log.warning(
                "%s does not accept results (%s); the sweep continues without it",
                self.tracker or f"MLflow at {mask(self.uri)}",
                reason,
            )
        with self._changed:
            self._reason = reason
            if trial is not None and final:
                self._refused[trial.key] = reason
            elif trial is not None:
                self._waiting.setdefault(trial.key, trial)

    def _pause(self, seconds: float) -> None:
        """Wait before the next attempt; closing ends the wait."""
        end = time.monotonic() + seconds
        with self._changed:
            while not self._closing and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)


class BackgroundTrackers:
    """Several trackers as one: what is put is put into each, and closing waits for each."""

    def __init__(self, trackers: Sequence[BackgroundTracker]) -> None:
        self._trackers = trackers
        self.with_mlflow = any(not tracker.tracker for tracker in trackers)

    def put(self, trial: TrialResult) -> None:
        """Have the trial logged as it stands now, everywhere."""
        for tracker in self._trackers:
            tracker.put(trial)

    def close(self, report: Sequence[Path] = ()) -> list[Delivery]:
        """Wait for what is left, and say of each tracker what did not arrive."""
        return [tracker.close(report=report) for tracker in self._trackers]


def mlflow_errors() -> tuple[type[Exception], ...]:
    """What MLflow raises where a store does not accept something; imports it.

    Requests' errors are OSErrors; Alembic's come where a run on another machine makes the tables just now, import errors where
    the driver of a database is not installed.
    """
    with collection_paused():
        from alembic.util import CommandError
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError, CommandError, OSError, UserError, ImportError


def _where(tracker: LogsTrials) -> tuple[str, str]:
    """Address and experiment of a tracker that is MLflow's."""
    return (tracker.address, tracker.experiment) if isinstance(tracker, Tracker) else ("", "")


def _line(error: Exception) -> str:
    """The first line of an error, not too long; of a failed request, which tells its whole history, the cause."""
    text = mask((str(error).strip() or type(error).__name__).splitlines()[0])
    if "Caused by" in text:
        text = text.rsplit("Caused by", 1)[1].rsplit(": ", 1)[-1].strip("()'\" ")
    return text if len(text) <= 200 else f"{text[:199]}…"
