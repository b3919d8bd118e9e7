"""Ctrl-C that comes while Python tidies up: raised again, where Python drops it."""

from __future__ import annotations

import _thread
import sys
import time
from typing import Any

SOON = 0.02
"""Seconds: by then the finaliser is left. Otherwise the interrupt is dropped and raised once more."""


def keep_interrupts() -> None:
    """Raise KeyboardInterrupt a moment later where it came inside a finaliser, or a callback of a weak reference.

    Python lets no exception out of these: it prints one line and continues, and Ctrl-C would have no effect.
    """
    report = sys.unraisablehook

    def interrupt_again(dropped: Any) -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            _thread.start_new_thread(_interrupt_soon, ())
        else:
            report(dropped)

    sys.unraisablehook = interrupt_again


def _interrupt_soon() -> None:
    time.sleep(SOON)
    _thread.interrupt_main()
