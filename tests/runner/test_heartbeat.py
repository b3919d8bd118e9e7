"""Signs of life come after a few seconds of silence, and more seldom in a run of hours."""

from __future__ import annotations

import io
import time

from made import made_trial
from rich.console import Console

from lmmcl.runner import heartbeat
from lmmcl.runner.display import Display
from lmmcl.runner.heartbeat import Heartbeat, WorkLine


def test_a_line_is_due_after_three_and_a_half_seconds_at_first_and_after_half_a_minute_later() -> None:
    now = [0.0]
    beat = Heartbeat(lambda: None, clock=lambda: now[0])
    now[0] = 3.4
    assert not beat.is_due()
    now[0] = 3.6
    assert beat.is_due()
    beat.postpone()
    assert not beat.is_due()
    now[0] = 10_000.0
    beat.postpone()
    now[0] += 20
    assert not beat.is_due()
    now[0] += 9
    assert beat.is_due(), "a log gets a line at least every 30 s of work"


def test_a_log_says_what_is_being_computed_while_nothing_is_done_yet(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(heartbeat, "OFTEN", 0.05)
    trial, text = made_trial(skills=("birds",), held_out=("colour",)), io.StringIO()
    console = Console(file=text, width=200, force_terminal=False)
    with Display([trial], console) as display:
        display.phase("starting Ray")
        assert "starting Ray" in text.getvalue()
        first = trial.stages[0]
        for note, told in (
            ({"doing": "loading the model"}, "pre-trained: loading the model"),
            (
                {"benchmark": "colour", "asked": 1, "benchmarks": 2, "answered": 40, "questions": 200},
                "pre-trained: evaluating colour 40/200 (1/2)",
            ),
        ):
            display.running({first.checkpoint.key: note})
            end = time.monotonic() + 20
            while told not in text.getvalue() and time.monotonic() < end:
                time.sleep(0.02)
            assert told in text.getvalue()
    said = text.getvalue()
    time.sleep(0.6)
    assert text.getvalue() == said, "nothing more once the run is over"


def test_who_waits_for_one_process_is_told_after_two_seconds_what_it_does() -> None:
    text, now = io.StringIO(), time.monotonic()
    with WorkLine(Console(file=text, width=80)) as line:
        line.say("pre-trained: loading [the] model")
        while not text.getvalue() and time.monotonic() - now < 20:
            time.sleep(0.05)
        assert time.monotonic() - now >= 1.9, "nothing is said of work that is done by then"
    assert text.getvalue() == "pre-trained: loading [the] model …\n"


def test_in_a_terminal_the_line_changes_and_is_gone_in_the_end() -> None:
    text = io.StringIO()
    with WorkLine(Console(file=text, width=80, force_terminal=True)) as line:
        line.say("loading [the] model")
        line._tell()
        line.say("evaluating [colour] 40/200 (1/2)")
        end = time.monotonic() + 20
        while "evaluating [colour] 40/200 (1/2)" not in text.getvalue() and time.monotonic() < end:
            time.sleep(0.02)
    assert "evaluating [colour] 40/200 (1/2)" in text.getvalue()
    assert text.getvalue().endswith("\x1b[2K"), "the line is wiped"
