"""How what failed for a moment is tried again: one policy for stores, nodes, worker groups, MLflow and downloads.

No package is needed for it: the core runs where nothing but torch and its companions is installed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class BackOff:
    """Pauses that double from `first` to `longest` seconds; `retries` further tries after the first one, None: without end."""

    first: float = 1.0
    longest: float = 30.0
    retries: int | None = None

    def pause(self, failures: int) -> float:
        """Seconds to wait after `failures` failures, 1 or more: 1, 2, 4, … `longest`."""
        return min(self.longest, self.first * 2.0 ** min(max(failures, 1) - 1, 60))

    def is_spent(self, failures: int) -> bool:
        """Whether `failures` failures leave no further try."""
        return self.retries is not None and failures > self.retries

    def pauses(self) -> Iterator[float]:
        """The pause before each further try."""
        failures = 1
        while not self.is_spent(failures):
            yield self.pause(failures)
            failures += 1

    def call(
        self,
        function: Callable[[], T],
        *,
        is_transient: Callable[[Exception], bool],
        on_retry: Callable[[Exception, float], None] = lambda error, pause: None,
        sleep: Callable[[float], None] | None = None,
    ) -> T:
        """What `function` returns; a transient error is tried again after a pause, and raised by the last try.

        `on_retry` is called before each pause with the error and the pause.
        """
        failures = 0
        while True:
            try:
                return function()
            except Exception as error:
                failures += 1
                if self.is_spent(failures) or not is_transient(error):
                    raise
                on_retry(error, pause := self.pause(failures))
            (sleep or time.sleep)(pause)
