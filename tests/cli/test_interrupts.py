"""Ctrl-C ends a command whatever Python is doing at that moment."""

from __future__ import annotations

import signal
import sys
import time
import weakref
from collections.abc import Callable

import pytest

from lmmcl.cli.interrupts import keep_interrupts


class Finalised:
    def __del__(self) -> None:
        press()


class Watched:
    pass


def press(*_: object) -> None:
    signal.raise_signal(signal.SIGINT)


def in_a_finaliser() -> None:
    Finalised()


def in_a_callback_of_a_weak_reference() -> None:
    watched = Watched()
    reference = weakref.ref(watched, press)
    del watched
    assert reference() is None


@pytest.mark.parametrize("interrupted", [in_a_finaliser, in_a_callback_of_a_weak_reference])
def test_an_interrupt_that_python_drops_is_raised_again(
    interrupted: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda dropped: reported.append(dropped.exc_type))
    interrupted()  # this is how Python does without
    assert reported == [KeyboardInterrupt]
    keep_interrupts()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
        time.sleep(1)
    assert len(reported) == 1


def test_other_errors_that_python_drops_are_reported_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda dropped: reported.append(dropped.exc_type))
    keep_interrupts()

    def fail(_: object) -> None:
        raise ValueError

    watched = Watched()
    reference = weakref.ref(watched, fail)
    del watched
    assert (reference(), reported) == (None, [ValueError])
