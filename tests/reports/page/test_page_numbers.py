"""What the page's scripts compute themselves is what the report says: digits, intervals of scores; and where labels go."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import pytest
from page_script import NODE, evaluate
from synthetic_results import make_sweep

from lmmcl.evaluation.intervals import wilson
from lmmcl.reports import formatting
from lmmcl.reports.page.page_data import _short, page_data

pytestmark = pytest.mark.skipif(NODE is None, reason="no node on the path")


@pytest.fixture(scope="module")
def data() -> dict[str, Any]:
    return page_data(make_sweep(recipes=["sa_proj", "full"], rates=[1e-5], updates=2)) | {"shares": [True] * 13}


def test_points_are_rounded_as_in_the_terminal(data: dict[str, Any]) -> None:
    dice = random.Random(0)
    values = [
        -0.04,
        0.0,
        -0.05,
        0.05,
        0.15,
        0.25,
        0.75,
        -0.25,
        -0.35,
        1.005,
        12.35,
        99.95,
        12.3499999,
        123.44999,
        -7.25,
    ]
    values += [dice.choice((1, -1)) * dice.randrange(4000) / 40 for _ in range(500)]
    values += [dice.uniform(-200, 200) for _ in range(500)]
    shown = evaluate(data, ["data.js"], f"{json.dumps([_short(value) for value in values])}.map(points)")
    assert shown == [formatting.points(value) for value in values]
    scores = [abs(value) for value in values]
    shown = evaluate(data, ["data.js"], f"{json.dumps([_short(value) for value in scores])}.map(tenth)")
    assert shown == [f"{value:.1f}" for value in scores]


def test_intervals_of_scores_are_those_of_the_report(data: dict[str, Any]) -> None:
    counts = [(0, 200), (3, 200), (100, 200), (200, 200), (1, 7), (499, 500)]
    stages = [{"scores": [100 * right / asked], "counts": [asked]} for right, asked in counts]
    found = evaluate(data, ["data.js"], f"{json.dumps(stages)}.map((stage) => wilson(stage, 0))")
    assert [tuple(each) for each in found] == [pytest.approx(wilson(*pair)) for pair in counts]


def test_only_shares_of_right_answers_have_such_an_interval() -> None:
    results = make_sweep(recipes=["full"], rates=[1e-5], updates=2)
    assert not any(page_data(results)["shares"]), "scores of this sweep are any numbers"


def boxes(found: list[dict[str, Any] | None], spots: list[dict[str, Any]]) -> list[tuple[float, float, float, float]]:
    made = []
    for place, spot in zip(found, spots, strict=True):
        if place is not None:
            wide, x, y = len(spot["text"]) * 6.2 + 4, spot["x"] + place["dx"], spot["y"] + place["dy"]
            left = {"left": x, "right": x - wide, "center": x - wide / 2}[place["from"]]
            made.append((left, y - 7, left + wide, y + 7))
    return made


def test_names_beside_points_cover_neither_each_other_nor_a_point(data: dict[str, Any]) -> None:
    dice = random.Random(1)
    spots = [
        {"x": dice.uniform(20, 780), "y": dice.uniform(20, 380), "text": "sa_proj · lr 1e-3", "must": place < 6}
        for place in range(60)
    ]
    frame = {"left": 0, "right": 800, "top": 0, "bottom": 400}
    ask = f"placeLabels({json.dumps(spots)}, {json.dumps(frame)}, 24)"
    found = evaluate(data, ["data.js", "labels.js"], ask)
    assert all(place is not None for place in found[:6]), "the important ones have a place"
    assert 12 <= sum(place is not None for place in found) <= 24
    placed = boxes(found, spots)
    dots = [(spot["x"] - 7, spot["y"] - 7, spot["x"] + 7, spot["y"] + 7) for spot in spots]
    for number, box in enumerate(placed):
        assert box[0] >= 0 and box[2] <= 800 and box[1] >= 0 and box[3] <= 400
        for other in [*placed[:number], *dots]:
            assert box[2] <= other[0] or other[2] <= box[0] or box[3] <= other[1] or other[3] <= box[1]


def test_names_at_the_ends_of_lines_stand_apart_in_the_order_of_the_lines(data: dict[str, Any]) -> None:
    heights = [100, 101, 100.5, 102, 300, 20, 390, 391, 392]
    found = evaluate(data, ["data.js", "labels.js"], f"stackLabels({json.dumps(heights)}, 10, 390)")
    order = sorted(range(len(heights)), key=lambda place: heights[place])
    placed = [found[place] for place in order]
    assert all(below - above >= 14 for above, below in itertools.pairwise(placed))
    assert placed[0] >= 10 and placed[-1] <= 390
    crowded = evaluate(data, ["data.js", "labels.js"], "stackLabels(Array(100).fill(50), 0, 140)")
    assert [place is not None for place in crowded] == [True] * 10 + [False] * 90, "those named first are kept"
