"""What a person sees of a running sweep."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from made import made_trial
from rich.console import Console

from lmmcl.runner.display import Display


def shown(*, terminal: bool, story, width: int = 140, name: str | None = None) -> str:
    out = io.StringIO()
    trials = [made_trial(seed=seed) for seed in (0, 1)]
    trials = [replace(trial, name=name) for trial in trials] if name else trials
    with Display(trials, Console(file=out, force_terminal=terminal, width=width)) as display:
        story(display, trials)
    return out.getvalue()


def test_a_pipe_gets_what_is_to_come_and_one_line_for_each_finished_stage() -> None:
    def story(display: Display, trials: list) -> None:
        display.stage_done(trials[0], {"stage": 0})
        display.stage_done(trials[0], {"stage": 1, "learning": 12.34, "held_out_forgetting": -5.0})

    lines = shown(terminal=False, story=story).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("Running 2 trials (6 stages). Results are printed as each stage completes.")
    assert "stage 1 (after first) · learning +12.3 · held out forgetting -5.0" in lines[2]
    assert "left]" in lines[2]


def test_a_terminal_gets_a_table_with_the_stage_the_pace_and_the_scores_so_far() -> None:
    def story(display: Display, trials: list) -> None:
        display.stage_done(trials[0], {"stage": 1, "learning": 12.34, "held_out_forgetting": -5.0})
        key = trials[0].stages[2].checkpoint.key
        display.running({key: {"update": 30, "updates": 94, "updates_per_second": 11.5}})

    text = shown(terminal=True, story=story)
    assert "●●○" in text
    assert "second: update 30/94, 11.5/s" in text and "0:00" in text
    assert "+12.3" in text


def test_a_worker_is_told_with_the_time_since_it_began_and_gone_when_it_is_done() -> None:
    trial, now = made_trial(), [0.0]
    keys = [trial.stages[number].checkpoint.key for number in (1, 2)]
    out = io.StringIO()
    with Display([trial], Console(file=out, force_terminal=False, width=140), now=lambda: now[0]) as display:
        display.running({keys[0]: {"doing": "loading the model"}, keys[1]: {}})
        now[0] = 65.0
        display.running({keys[0]: {"update": 1, "updates": 3, "updates_per_second": 2.0}, keys[1]: {}})
        (first,) = display._works()
        assert str(first) == "first: update 1/3, 2.0/s (for 1:05)", "one that waits for its turn does not work"
        display.running({keys[1]: {"doing": "loading the model"}})
        (second,) = display._works()
        assert str(second) == "second: loading the model (for 0:00)"
        display._tell()
    assert "[1:05, ETA unknown] second: loading the model (for 0:00)" in out.getvalue()


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_run_is_drawn_as_wide_as_the_terminal(width: int) -> None:
    def story(display: Display, trials: list) -> None:
        display.phase("starting Ray")
        display.stage_done(trials[0], {"stage": 1, "learning": 12.34, "held_out_forgetting": -5.0})
        display.running({trials[0].stages[2].checkpoint.key: {"update": 30, "updates": 94, "updates_per_second": 11.5}})
        display.trial_failed(trials[1], "row 3 broke", "traceback")

    lines = plain(shown(terminal=True, story=story, width=width)).split("elapsed")[-1].splitlines()
    assert all(len(line) <= width for line in lines)
    assert all(told in " ".join(lines) for told in ("s0", "s1", "failed", "+12.3", "update 30/94,"))


def test_a_narrow_terminal_cuts_neither_names_nor_numbers_and_takes_no_name_for_markup() -> None:
    def story(display: Display, trials: list) -> None:
        display.stage_done(trials[0], {"stage": 1, "learning": 12.34, "held_out_forgetting": -5.0})

    text = shown(
        terminal=True, story=story, width=60, name="late [/mlp] of a model with a name that is long · lr 1e-3 · s0"
    )
    table = text.split("elapsed")[-1]
    assert all(word in table for word in ("stages", "learning", "held-out", "+12.3", "-5.0", "●●○", "late [/mlp]"))
    assert all(len(line) <= 60 for line in plain(table).splitlines())
    first = [line[: table.index("●●○")] for line in plain(table).splitlines()]
    assert "".join(word for line in first for word in line.split()).count("long") == 2, "both rows tell the whole name"


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_a_failed_trial_is_told_at_once_by_name_and_reason() -> None:
    text = shown(
        terminal=False, story=lambda display, trials: display.trial_failed(trials[1], "row 3 broke", "traceback")
    )
    assert "failed: llm · s1: row 3 broke" in text
    assert "traceback" not in text


def test_the_end_of_a_log_that_failed_several_trials_is_told_once() -> None:
    def story(display: Display, trials: list) -> None:
        for trial in trials:
            display.trial_failed(trial, "its process died\nthe end of its log:\nKilled", "traceback")

    text = shown(terminal=False, story=story)
    assert text.count("Killed") == 1
    assert "failed: llm · s1: its process died (see above)" in text


def test_stages_that_were_recorded_before_say_nothing_of_the_time_left() -> None:
    trials, now = [made_trial(seed=seed) for seed in (0, 1)], [0.0]
    console = Console(file=io.StringIO(), force_terminal=False, width=140)
    with Display(trials, console, now=lambda: now[0]) as display:
        for stage in (0, 1):
            display.stage_done(trials[0], {"stage": stage}, computed=False)
        now[0] = 300.0
        assert "left" not in display._left(), "nothing has been computed yet"
        display.stage_done(trials[0], {"stage": 2})
        assert display._left() == "about 10m left", "two stages more at five minutes each"
