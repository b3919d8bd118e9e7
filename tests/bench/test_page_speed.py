"""The page of a thousand made-up trials in a browser: its first paint against a page with plotly alone, and how soon it answers.

    pytest -m slow -s tests/bench/test_page_speed.py

Medians of five; on a machine that does nothing else.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from browser import CHROMIUM, Browser, browser
from synthetic_results import HELD_OUT, SKILLS, make_sweep

from lmmcl.reports.page.page import write_page
from lmmcl.reports.page.page_answers import PageAnswers
from lmmcl.reports.page.page_extras import PageExtras
from lmmcl.reports.results import SweepResults

TRIALS, TIMES = 1000, 5
MOST_TIMES, MOST_MILLISECONDS = 1.5, 100.0
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path"),
]
TIMED = "(() => {{ const at = performance.now(); {}; document.body.offsetHeight; return performance.now() - at; }})()"
PICK = "const list = document.querySelector('#{}'); list.selectedIndex = {}; list.dispatchEvent(new Event('change'))"
DRAG = """const canvas = document.querySelector('#parallel'), box = canvas.getBoundingClientRect();
  canvas.dispatchEvent(new PointerEvent('pointermove', { clientX: box.x + 60, clientY: box.y + 100 + 20 * {n}, bubbles: true }))"""
INTERACTIONS = {
    "a trial": "document.querySelectorAll('#trials tbody tr')[{n} + 3].click()",
    "sort the matrix": "document.querySelectorAll('#heat thead th button')[{n}].click()",
    "sort the table": "document.querySelectorAll('#trials thead th button')[{n} + 3].click()",
    "two trials": PICK.format("pair-second", "{n} + 1"),
    "along an axis": DRAG,
    "benchmark": PICK.format("answers-benchmark", "{n} + 1"),
    "filter answers": PICK.format("answers-filter", "{n} + 1"),
    "search answers": "const search = document.querySelector('#answers-search'); search.value = 'question {n}'; search.oninput()",
    "all questions": "const search = document.querySelector('#answers-search'); search.value = ''; "
    + PICK.format("answers-filter", "0"),
    "next questions": "document.querySelector('#answers-next').click()",
}


def large_sweep() -> SweepResults:
    recipes = ["sa_proj", "gate_up", "mlp", "llm"]
    rates = [1e-6 * (place + 1) for place in range(TRIALS // len(recipes))]
    return make_sweep(recipes=recipes, rates=rates, updates=40)


def made_extras(results: SweepResults) -> PageExtras:
    """Six trials with answers to 200 questions of each benchmark after each stage, and all of their pairs."""
    dice = random.Random(0)
    chosen = [trial.key for trial in results.trials[:6]]
    blocks: list[dict[str, Any]] = []
    for name in (*SKILLS, *HELD_OUT):
        columns = [
            {
                "predictions": [dice.randrange(200, 240) for _ in range(200)],
                "scores": [dice.randrange(2) for _ in range(200)],
            }
            for _ in range(1 + len(chosen) * len(SKILLS))
        ]
        runs = [
            {
                "trial": place,
                "stages": [
                    [0, None, 0],
                    *([at + 1, skill, 1 + place * len(SKILLS) + at] for at, skill in enumerate(SKILLS)),
                ],
            }
            for place in range(len(chosen))
        ]
        texts = [f"question {number} of {name}?" for number in range(200)] + [
            f"answer {number}" for number in range(40)
        ]
        blocks.append(
            {
                "name": name,
                "ids": [f"{name}-{number}" for number in range(200)],
                "questions": list(range(200)),
                "references": [[dice.randrange(200, 240)] for _ in range(200)],
                "pictures": [[] for _ in range(200)],
                "texts": texts,
                "columns": columns,
                "runs": runs,
            }
        )
    trials = [
        {"name": trial.name, "short": trial.name, "key": trial.key, "front": False} for trial in results.trials[:6]
    ]
    rows = [[name, name, 1.0, 2.0, 1.0, -0.5, 2.5, "0.200", "0.400", False] for name in (*SKILLS, *HELD_OUT)]
    pairs = [
        {"trials": list(pair), "seeds": 1, "stage": 5, "measures": [], "benchmarks": rows, "words": ["a", "b"]}
        for pair in combinations(range(6), 2)
    ]
    return PageExtras(PageAnswers(chosen, blocks), {"trials": trials, "pairs": pairs})


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    from plotly.offline import get_plotlyjs

    folder = tmp_path_factory.mktemp("pages")
    results = replace(large_sweep(), name="large")
    write_page(results, folder / "page.html", made_extras(results))
    bare = "<!doctype html><html lang='en'><title>plotly</title><body><h1>plotly alone</h1><div id='chart'></div>"
    bare += f"<script>{get_plotlyjs()}</script><script>Plotly.newPlot('chart', [{{x: [1, 2], y: [1, 2]}}]);</script></body></html>"
    (folder / "bare.html").write_text(bare, encoding="utf-8")
    return {name: (folder / f"{name}.html").as_uri() for name in ("bare", "page")}


def test_the_first_paint_is_nearly_as_soon_as_that_of_plotly_alone(tab: Browser, pages: dict[str, str]) -> None:
    painted: dict[str, list[float]] = {name: [] for name in pages}
    for _ in range(TIMES):
        for name, address in pages.items():
            tab.open(address)
            tab.wait("performance.getEntriesByName('first-contentful-paint').length > 0")
            painted[name].append(tab.run("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
    middle = {name: statistics.median(times) for name, times in painted.items()}
    print(
        f"first paint {middle['page']:.0f} ms, of plotly alone {middle['bare']:.0f} ms: {middle['page'] / middle['bare']:.2f} ×"
    )
    assert tab.faults == [] and middle["page"] <= MOST_TIMES * middle["bare"]


def test_the_page_answers_within_a_tenth_of_a_second(tab: Browser, pages: dict[str, str]) -> None:
    tab.open(pages["page"])
    tab.wait("document.documentElement.dataset.drawn === 'yes'", 120)
    x, y = tab.run(
        "(() => { const canvas = document.querySelector('#parallel'); canvas.scrollIntoView(); const box = canvas.getBoundingClientRect(); return [box.x + 60, box.y + 70]; })()"
    )
    tab.point(x, y)
    tab.call("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, button="left", buttons=1, clickCount=1)
    middle = {}
    for name, script in INTERACTIONS.items():
        times = []
        for number in range(TIMES):
            times.append(tab.run(TIMED.format(script.replace("{n}", str(number)))))
            tab.wait("document.documentElement.dataset.drawn === 'yes'", 120)
        middle[name] = statistics.median(times)
    print("; ".join(f"{name} {milliseconds:.0f} ms" for name, milliseconds in middle.items()))
    assert tab.faults == []
    assert not {name: milliseconds for name, milliseconds in middle.items() if milliseconds > MOST_MILLISECONDS}
