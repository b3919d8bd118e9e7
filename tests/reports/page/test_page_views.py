"""The page's views in a headless Chromium: answers, matrices, two trials, parallel coordinates, losses, dark and light."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from answered_store import answered_sweep
from browser import CHROMIUM, Browser
from made_page import made_results
from test_page import EVIL
from test_page_answers import gathered

from lmmcl.reports.page import page as page_module
from lmmcl.reports.page.page import write_page
from lmmcl.reports.page.page_extras import PageExtras
from lmmcl.reports.results import SweepResults

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path"),
    pytest.mark.usefixtures("no_fault"),
]
QUESTIONS = "document.querySelectorAll('.question').length"
COUNT = "document.querySelector('#answers-count').textContent"
DRAWN = "document.documentElement.dataset.drawn === 'yes'"


def pick(tab: Browser, id: str, value: str) -> None:
    """Choose from a list as a reader does."""
    tab.run(
        f"(() => {{ const list = document.querySelector('#{id}'); list.value = {value!r}; list.dispatchEvent(new Event('change')); }})()"
    )


def texts(tab: Browser, selector: str) -> list[str]:
    return tab.run(f"[...document.querySelectorAll({selector!r})].map((each) => each.textContent)")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[SweepResults, PageExtras]:
    folder = tmp_path_factory.mktemp("answered")
    return gathered(answered_sweep(folder), folder / "store")


def show(tab: Browser, shown: tuple[SweepResults, PageExtras], folder: Path, **screen: object) -> None:
    write_page(shown[0], folder / "page.html", shown[1])
    tab.open((folder / "page.html").as_uri(), **screen)  # type: ignore[arg-type]
    tab.wait(DRAWN)


@pytest.mark.parametrize("beside", [False, True], ids=["one file", "a folder beside it"])
def test_all_questions_can_be_paged_filtered_and_searched(
    tab: Browser,
    shown: tuple[SweepResults, PageExtras],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    beside: bool,
) -> None:
    if beside:
        monkeypatch.setattr(page_module, "LARGEST", 100_000)
    show(tab, shown, tmp_path)
    assert (tmp_path / "page_files").is_dir() == beside
    pick(tab, "answers-benchmark", "0")
    tab.wait(f"{COUNT} === '1–10 of 24 questions'")
    seen = texts(tab, ".question .id")
    tab.click("#answers-next")
    tab.click("#answers-next")
    assert tab.run(COUNT) == "21–24 of 24 questions" and tab.run("document.querySelector('#answers-next').disabled")
    assert not set(texts(tab, ".question .id")) & set(seen)
    tab.wait("[...document.querySelectorAll('.picture img')].every((each) => each.complete && each.naturalWidth > 0)")
    tab.click(".picture")
    assert tab.run("document.querySelector('#large').open && document.querySelector('#large-picture').naturalWidth > 0")
    tab.click("#large-close")
    assert not tab.run("document.querySelector('#large').open")
    tab.run(
        f"(() => {{ const box = document.querySelector('#answers-search'); box.value = {seen[3]!r}; box.oninput(); }})()"
    )
    assert texts(tab, ".question .id") == [seen[3]]
    picture = Path(os.environ.get("LMMCL_TEST_ARTEFACTS", tmp_path)) / "answers.png"
    tab.picture(picture, whole=True)


def test_filters_keep_exactly_the_questions_they_name(
    tab: Browser, shown: tuple[SweepResults, PageExtras], tmp_path: Path
) -> None:
    show(tab, shown, tmp_path)
    pick(tab, "answers-benchmark", "0")
    while tab.run("document.querySelectorAll('#answers-trials .chip[aria-pressed=false]').length"):
        tab.click("#answers-trials .chip[aria-pressed=false]")
    block = shown[1].answers.blocks[0]
    right = [
        [
            [block["columns"][column]["scores"][question] >= 0.5 for _, _, column in run["stages"]]
            for run in block["runs"]
        ]
        for question in range(24)
    ]
    expected = {
        "all": [True] * 24,
        "flipped": [any(len(set(run)) > 1 for run in runs) for runs in right],
        "lost": [any(run[0] and not run[-1] for run in runs) for runs in right],
        "gained": [any(not run[0] and run[-1] for run in runs) for runs in right],
        "wrong": [not any(run[-1] for run in runs) for runs in right],
        "never": [not any(any(run) for run in runs) for runs in right],
        "right": [all(run[-1] for run in runs) for runs in right],
        "only-1": [[run[-1] for run in runs] == [False, True, False, False] for runs in right],
    }
    assert sum(expected["gained"]) and sum(expected["lost"]), "the sweep has what is looked for"
    for value, kept in expected.items():
        pick(tab, "answers-filter", value)
        told = tab.run(COUNT)
        assert (f"of {sum(kept)} questions" in told) if sum(kept) else (told == "No question is like this."), value
    counts = texts(tab, "#flip-counts tbody tr:first-child .flip-count")
    lost = [sum(runs[0][at] and not runs[0][at + 1] for runs in right) for at in (0, 1)]
    assert [counts[0], counts[2]] == [f"▼ {number}" for number in lost]
    tab.click("#flip-counts .gained")
    assert tab.run(QUESTIONS) == min(10, sum(not runs[0][0] and runs[0][1] for runs in right))
    marks = set(texts(tab, ".question td.flipped .mark"))
    assert marks <= {"✓ ▲", "✗ ▼"} and marks


def test_hostile_answers_stay_text(tab: Browser, tmp_path: Path) -> None:
    sweep = answered_sweep(tmp_path, 4, hostile=EVIL)
    show(tab, gathered(sweep, tmp_path / "store"), tmp_path)
    pick(tab, "answers-benchmark", "0")
    assert (
        EVIL in texts(tab, ".question .asked")[0]
        and tab.run("document.querySelectorAll('.question script').length") == 0
    )


def test_the_matrix_sorts_by_a_benchmark_and_selects_a_trial(
    tab: Browser, shown: tuple[SweepResults, PageExtras], tmp_path: Path
) -> None:
    show(tab, shown, tmp_path)
    column = "[...document.querySelectorAll('#heat tbody tr')].map((row) => Number(row.cells[1].textContent))"
    tab.click("#heat thead th:nth-child(2) button")
    assert tab.run(column) == sorted(tab.run(column), reverse=True) and len(tab.run(column)) == 4
    tab.click("#heat thead th:nth-child(2) button")
    assert tab.run(column) == sorted(tab.run(column))
    assert tab.run("document.querySelector('#heat thead th:nth-child(2)').getAttribute('aria-sort')") == "ascending"
    pick(tab, "heat-value", "score")
    assert all(0 <= value <= 100 for value in tab.run(column))
    tab.click("#heat tbody tr:last-child th button")
    name = texts(tab, "#heat tbody tr:last-child th")[0]
    assert name in tab.run("document.querySelector('#trial').selectedOptions[0].textContent")
    tab.click("#matrix thead tr:last-child th:nth-child(2) button")
    scores = tab.run(
        "[...document.querySelectorAll('#matrix tbody tr')].map((row) => parseFloat(row.cells[1].textContent))"
    )
    assert scores == sorted(scores, reverse=True) and len(scores) == 3
    tab.click("#matrix tbody tr:first-child th button")
    assert tab.run("document.querySelectorAll('#matrix tbody tr').length") == 3


def test_two_trials_are_shown_with_the_differences_of_the_report_either_way_round(
    tab: Browser, shown: tuple[SweepResults, PageExtras], tmp_path: Path
) -> None:
    show(tab, shown, tmp_path)
    pick(tab, "pair-first", "0")
    pick(tab, "pair-second", "2")
    rows = tab.run(
        "[...document.querySelectorAll('#pair-table tr')].map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    pair = next(pair for pair in shown[1].pairs["pairs"] if pair["trials"] == [0, 2])
    assert [row[0] for row in rows] == ["measure", *(row[1] for row in pair["measures"]), "benchmark"] + [
        row[1] for row in pair["benchmarks"]
    ]
    assert pair["words"][0] in tab.run("document.querySelector('#pair-text').textContent")
    pick(tab, "pair-first", "2")
    pick(tab, "pair-second", "0")
    turned = tab.run(
        "[...document.querySelectorAll('#pair-table tr')].map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    assert [row[1:3] for row in turned[1:3]] == [row[2:0:-1] for row in rows[1:3]]
    assert pair["words"][1] in tab.run("document.querySelector('#pair-text').textContent")
    assert tab.run("document.querySelectorAll('#pair .errorbar').length") == len(pair["measures"]) + len(
        pair["benchmarks"]
    )


def test_dragging_along_an_axis_keeps_the_trials_between_its_ends(tab: Browser, tmp_path: Path) -> None:
    show(tab, (made_results(), PageExtras()), tmp_path)
    assert texts(tab, "#parallel-told") == ["All 12 trials shown."]
    tab.run("document.querySelector('#parallel').scrollIntoView({ block: 'center' })")
    box = tab.run(
        "(({ x, y, width, height }) => [x, y, width, height])(document.querySelector('#parallel').getBoundingClientRect())"
    )
    x, top, bottom = box[0] + 60, box[1] + 50, box[1] + box[3] - 120
    tab.point(x, top)
    for kind, y in (
        ("mousePressed", top),
        ("mouseMoved", (top + bottom) / 2),
        ("mouseMoved", bottom),
        ("mouseReleased", bottom),
    ):
        tab.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)
    assert texts(tab, "#parallel-told")[0].startswith("8 of 12 trials"), "two of three recipes"
    tab.click("#parallel-clear")
    assert texts(tab, "#parallel-told") == ["All 12 trials shown."]


def test_losses_of_chosen_trials_lie_over_each_other(tab: Browser, tmp_path: Path) -> None:
    show(tab, (made_results(), PageExtras()), tmp_path)
    assert tab.run("document.querySelector('#loss').data.length") == 1
    pick(tab, "loss-add", "3")
    pick(tab, "loss-add", "5")
    assert tab.run("document.querySelector('#loss').data.length") == 3
    dashes = tab.run("document.querySelector('#loss').data.map((each) => each.line.dash)")
    assert len(set(dashes)) == 3
    tab.click("#loss-trials .chip")
    assert tab.run("document.querySelector('#loss').data.length") == 2


def test_the_page_is_dark_where_the_system_is_or_by_its_switch(tab: Browser, tmp_path: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    paper = "document.querySelector('#scatter')._fullLayout.paper_bgcolor"
    results = replace(made_results(), searches=())
    try:
        tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        show(tab, (results, PageExtras()), tmp_path)
        assert tab.run(ground) == "rgb(20, 24, 29)" and tab.run(paper) == "#14181d"
        pick(tab, "theme", "light")
        assert tab.run(ground) == "rgb(255, 255, 255)" and tab.run(paper) == "#ffffff"
        pick(tab, "theme", "")
    finally:
        tab.call("Emulation.setEmulatedMedia", features=[])


def test_fractional_scores_are_drawn_with_their_intervals(tab: Browser, tmp_path: Path) -> None:
    shown = gathered(answered_sweep(tmp_path, 20, partial=("shape",)), tmp_path / "store")
    show(tab, shown, tmp_path)
    for name in ("shape", "colour"):
        pick(tab, "measure", f"score/{name}")
        arms = "document.querySelector('#curves').data[0].error_y"
        assert tab.run(f"{arms}.visible"), name
        lengths = tab.run(f"[...{arms}.array].filter((_, at) => at < 3)")
        assert all(length > 1 for length in lengths), "partly right answers have arms as right and wrong ones do"
    trial = tab.run("document.querySelector('#trial').selectedOptions[0].textContent.replace('★ ', '')")
    stage = next(each for each in shown[0].trials if each.name == trial).stages[-1]
    low, high = stage.score_intervals["shape"]
    titles = tab.run("[...document.querySelectorAll('#matrix tbody tr:last-child td')].map((cell) => cell.title)")
    assert f"shape: 20 questions, 95 % interval {low:.1f} … {high:.1f}" in titles
    cells = tab.run("[...document.querySelectorAll('#heat tbody tr.chosen td')].map((cell) => cell.title)")
    assert any(f"after stage 2: {stage.scores['shape']:.1f} [{low:.1f}, {high:.1f}]" in title for title in cells)


@pytest.mark.parametrize("width", [1400, 800, 420])
def test_no_chart_loses_an_axis_and_nothing_lies_on_the_data(tab: Browser, tmp_path: Path, width: int) -> None:
    show(tab, (made_results(), PageExtras()), tmp_path, width=width, height=900, phone=width < 500)
    assert tab.run("document.documentElement.scrollWidth - innerWidth") <= 0
    lost = tab.run("""[...document.querySelectorAll('.js-plotly-plot')].filter((chart) => {
      const box = chart.getBoundingClientRect(), inside = (each) => {
        const at = each.getBoundingClientRect();
        return at.left >= box.left - 1 && at.right <= box.right + 1 && at.top >= box.top - 1 && at.bottom <= box.bottom + 1;
      };
      const parts = [...chart.querySelectorAll('.xtick, .ytick, .xtitle, .ytitle, .annotation-text')];
      return !parts.length || !parts.every(inside) || !chart.querySelector('.ytick');
    }).map((chart) => chart.id)""")
    assert lost == []
    covered = tab.run("""[...document.querySelectorAll('.js-plotly-plot')].filter((chart) => {
      const bar = chart.querySelector('.modebar-container .modebar'), plot = chart.querySelector('.plot, .cartesianlayer .bg, .nsewdrag');
      return bar && plot && bar.getBoundingClientRect().bottom > plot.getBoundingClientRect().top + 1;
    }).map((chart) => chart.id)""")
    assert covered == []
