"""How long a run still takes, as a number that a person can watch: it counts down, and moves to new evidence without jumping."""

from __future__ import annotations

import math

LEAST_TIME_CONSTANT = 10.0
SHARE = 0.1
"""Of the time that has been watched: how long new evidence takes to count (a time constant), in seconds at least the above."""


class SteadyEstimate:
    """Follows an estimate that jumps: between two looks it counts down by the time that passed, and makes up part of the gap."""

    def __init__(self) -> None:
        self._begun: float | None = None
        self._last = 0.0
        self._value: float | None = None

    def update(self, target: float | None, now: float) -> float | None:
        """What to show at `now` (seconds of any clock) where the evidence says `target`; None: nothing is known yet."""
        if target is None:
            self._value = None
            return None
        if self._value is None or self._begun is None:
            self._begun, self._last, self._value = now, now, target
            return target
        passed, watched = max(0.0, now - self._last), now - self._begun
        counted = max(min(self._value, target), self._value - passed)
        weight = 1.0 - math.exp(-passed / max(LEAST_TIME_CONSTANT, SHARE * watched))
        self._value, self._last = counted + weight * (target - counted), now
        return self._value


class StagePace:
    """What is left by the pace of the stages that are done: the mean of all of them, which bursts of parallel trials do not move.

    `begun` is when the first stage began that counts. A stage that takes longer than the mean slows the pace little by little.
    """

    def __init__(self, begun: float) -> None:
        self._begun = self._last = begun
        self._done = 0

    def restart(self, now: float) -> None:
        """What was done before `now` says nothing of the stages to come: starting up, the pre-trained model's scores."""
        if not self._done:
            self._begun = self._last = now

    def completed(self, now: float) -> None:
        """One more stage is done."""
        self._done, self._last = self._done + 1, now

    def seconds_left(self, left: int, at_once: int, now: float) -> float | None:
        """Of `left` stages (`at_once` are under way now); None before a stage is done."""
        if not self._done:
            return None
        at_once = max(1, at_once)
        # Stages beside the one that ended last are half done, taken over many of them.
        pace = (self._last - self._begun) / (self._done + (at_once - 1) / 2)
        pace = max(pace, (now - self._begun) / (self._done + at_once))
        floor = pace * max(0, left - at_once)
        return max(floor, pace * left - (now - self._last))


def rough(seconds: float) -> str:
    """Seconds as an estimate is written: `55 s`, `3m20s`, `41m`, `2h05m`; finer would promise more than is known."""
    if seconds < 57.5:
        return f"{max(5, 5 * round(seconds / 5))} s"
    if seconds < 600:
        minutes, rest = divmod(5 * round(seconds / 5), 60)
        return f"{minutes}m{rest:02d}s"
    minutes = round(seconds / 60)
    return f"{minutes}m" if minutes < 60 else f"{minutes // 60}h{5 * (minutes % 60 // 5):02d}m"


def clock(seconds: float) -> str:
    """Time that has passed: `0:42`, `12:05`, `1:02:05`."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
