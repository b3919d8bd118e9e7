"""A running sweep on one screen, at the widths that terminals have."""

from __future__ import annotations

import io

import pytest
from made import made_trial
from rich.console import Console

from lmmcl.inspection.live_view import StepNames, TrialLine, Work, describe, live_view

SHARED = "llava-onevision-qwen2-7b · order main · s0"
NAMES = [
    f"{recipe} · lr {rate} · {SHARED}"
    for recipe in ("sa_proj", "gate_up", "[/mlp]\x1b[2J")
    for rate in ("1e-3", "5e-6")
]
LINES = [
    TrialLine(NAMES[0], 5, 5, 12.34, -5.0, "done"),
    TrialLine(NAMES[1], 5, 2, 3.0, 0.04, running=True),
    TrialLine(NAMES[2], 5, 1, None, None, "failed", failed=True),
    *(TrialLine(name, 5, 0) for name in NAMES[3:]),
]
WORKS = [
    Work("counting", "update 30/94, 11.5/s", (NAMES[1],), 725.0, "node-1"),
    Work("pre-trained", "evaluating colour 40/200 (1/12)", tuple(NAMES[3:]), 4.0, "node-2"),
]
HEADLINE = "0:42 elapsed, about 3m20s left"


def drawn(width: int, lines: list[TrialLine] = LINES, works: list[Work] = WORKS, most: int | None = None) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(live_view(HEADLINE, lines, works, most))
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_every_trial_and_every_worker_is_there_at_every_width(width: int) -> None:
    text = drawn(width)
    assert all(len(line) <= width for line in text.splitlines()) and "…" not in text
    for told in ("sa_proj", "gate_up", "[/mlp]\\x1b[2J", "●●●●●", "●●○○○", "+12.3", "-5.0", "+0.0", "done", "failed"):
        assert told in text, told
    words = " ".join(text.split())
    for told in (HEADLINE, "12:05", "0:04", "3 trials", "node-1", "update 30/94,", "evaluating", "40/200"):
        assert told in words, told


@pytest.mark.parametrize("width", [60, 80, 200])
def test_names_stand_without_what_all_share_which_is_told_once(width: int) -> None:
    words = " ".join(drawn(width).split())
    assert words.count("llava-onevision-qwen2-7b") == words.count("order main") == 1
    assert f"all trials: {SHARED}" in words


@pytest.mark.parametrize("width", [80, 200])
def test_a_worker_is_one_line_where_there_is_room(width: int) -> None:
    line = next(line for line in drawn(width).splitlines() if "update 30/94" in line)
    assert "counting: update 30/94, 11.5/s" in line and "12:05" in line and "sa_proj" in line


def test_columns_that_nobody_fills_are_left_out() -> None:
    text = drawn(80, [TrialLine(name, 5, 0) for name in NAMES[:2]], [])
    assert "learning" not in text and "state" not in text and "working now" not in text and "stages" in text


def test_one_machine_is_not_named() -> None:
    assert "node-1" not in drawn(200, works=WORKS[:1])


def test_with_little_room_running_and_failed_trials_stay_and_the_rest_is_counted() -> None:
    text = drawn(80, most=2)
    assert "●●○○○" in text and "failed" in text and "and 4 more trials (1 done)" in text


def test_many_stages_are_a_number() -> None:
    assert "7/20" in drawn(60, [TrialLine("a", 20, 7), TrialLine("b", 20, 8)], [])


@pytest.mark.parametrize(
    ("note", "told"),
    [
        ({"update": 30, "updates": 94, "updates_per_second": 11.46}, "update 30/94, 11.5/s"),
        ({"benchmark": "colour", "asked": 1, "benchmarks": 2}, "evaluating colour (1/2)"),
        ({"doing": "loading the model"}, "loading the model"),
        ({}, "working"),
    ],
)
def test_what_a_worker_notes_is_said_in_words(note: dict, told: str) -> None:
    assert describe(note) == told


def test_a_step_that_trials_share_is_told_of_all_of_them_and_of_the_stage_that_needs_it_first() -> None:
    trials, names = [made_trial(seed=seed) for seed in (0, 1)], StepNames()
    for trial in trials:
        names.add(trial)
    base = names.work(trials[0].stages[0].evaluations[0].key, {"doing": "x"}, 1.0)
    tuned = names.work(trials[1].stages[1].checkpoint.key, {"doing": "x"}, 1.0)
    assert base is not None and tuned is not None
    assert (base.stage, base.trials) == ("pre-trained", tuple(trial.name for trial in trials))
    assert (tuned.stage, tuned.trials) == ("first", (trials[1].name,))
    assert names.work("0" * 16, {}, 1.0) is None
