"""Signs of life where no table is drawn: a line after some seconds of silence, less often the longer a run takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

OFTEN, SELDOM = 3.5, 25.0
"""Seconds of silence after which a line is due: at first, and at most (a log gets one at least every 30 s)."""
SHARE = 0.01
"""Of the time that a run has taken so far: a line is due after that much silence, between these two."""


class Heartbeat:
    """Calls `tell` on a thread of its own when nothing was said for some time; `often` is that time at first, in seconds."""

    def __init__(
        self, tell: Callable[[], None], clock: Callable[[], float] = time.monotonic, often: float | None = None
    ) -> None:
        self._tell, self._clock, self._often = tell, clock, often
        self._started = self._last = clock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lmmcl-heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self.postpone()
        self._thread.start()

    def postpone(self) -> None:
        """Something was said now."""
        self._last = self._clock()

    def is_due(self) -> bool:
        """Whether it has been silent for too long."""
        now = self._clock()
        often = OFTEN if self._often is None else self._often
        return now - self._last >= min(SELDOM, max(often, SHARE * (now - self._started)))

    def stop(self) -> None:
        """Say nothing more."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(0.25):
            if self.is_due():
                self._tell()
                self.postpone()


class WorkLine:
    """What one process does now, for the person at the keyboard: a line that changes in a terminal, lines of text elsewhere.

    Nothing is said of work that is done within two seconds.
    """

    def __init__(self, console: Console) -> None:
        self._console, self._doing = console, ""
        self._heartbeat = Heartbeat(self._tell, often=2.0)
        self._status = console.status("", spinner="line")
        self._shown = False

    def __enter__(self) -> WorkLine:
        self._heartbeat.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._heartbeat.stop()
        self._status.stop()

    def say(self, doing: str) -> None:
        """What is being done now."""
        self._doing = doing
        if self._shown:
            self._status.update(escape(doing))

    def _tell(self) -> None:
        if not self._console.is_terminal:
            self._console.print(f"{self._doing} …", markup=False, highlight=False, soft_wrap=True)
        elif not self._shown:
            self._shown = True
            self._status.update(escape(self._doing))
            self._status.start()


@contextmanager
def saying(console: Console, doing: str) -> Iterator[None]:
    """Print what is being done now and then, so that nobody waits in silence."""
    heartbeat = Heartbeat(lambda: console.print(f"{doing} …", markup=False, highlight=False, soft_wrap=True))
    heartbeat.start()
    try:
        yield
    finally:
        heartbeat.stop()
