"""The page in a headless Chromium, used as a person does: mouse, keys, a phone, paper.

Pictures are left in the folder that LMMCL_TEST_ARTEFACTS names, for a person to look at.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from synthetic_results import make_sweep
from test_page import EVIL, small_sweep

from lmmcl.reports.page.page import write_page
from lmmcl.reports.page.page_data import page_data
from lmmcl.reports.results import Cell, SweepResults, TrialResult

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path"),
    pytest.mark.usefixtures("no_fault"),
]
ROWS = "document.querySelectorAll('#trials tbody tr').length"
CHOSEN = "document.querySelector('#trial').selectedOptions[0].textContent.replace('★ ', '')"
PICK = "document.querySelector('#advice .pick').textContent"
WIDER = "document.documentElement.scrollWidth - innerWidth"


def with_cells(trial: TrialResult) -> TrialResult:
    """Three of the four cells after each stage, and a probe that goes with what is forgotten."""
    stages = [trial.stages[0]]
    for stage in trial.stages[1:]:
        lost = stage.measures["held_out_forgetting"]
        cells = [
            Cell("id", "id", 20.0, 18.0, 22.0, tuple(trial.skills[: stage.number])),
            Cell("ood", "id", lost, lost - 1, lost + 1, ("shape", "relation")),
            Cell("id", "ood", lost - 2, lost - 4, lost - 1, ("colour",)),
            Cell("ood", "ood", None, None, None, ()),
        ]
        stages.append(replace(stage, cells=cells, probes={"bias": lost / 10}))
    return replace(trial, stages=stages)


def show(tab: Browser, results: SweepResults, folder: Path, place: str = "", **screen: object) -> None:
    write_page(results, folder / "page.html")
    tab.open((folder / "page.html").as_uri() + place, **screen)  # type: ignore[arg-type]


def picture(tab: Browser, name: str, folder: Path) -> None:
    tab.picture(Path(os.environ.get("LMMCL_TEST_ARTEFACTS", folder)) / f"{name}.png", whole=True)


@pytest.mark.parametrize("marks", ["", EVIL])
def test_the_page_filters_sorts_and_selects(tab: Browser, tmp_path: Path, marks: str) -> None:
    small = small_sweep()
    trials = [
        replace(trial, name=f"{trial.name} {marks}", axes={**trial.axes, "recipe": f"{trial.axes['recipe']}{marks}"})
        for trial in small.trials
    ]
    show(tab, replace(small, trials=trials), tmp_path)
    assert tab.run(ROWS) == 10
    tab.click(".chip")
    assert 0 < tab.run(ROWS) < 10
    tab.click(".chip")
    tab.run(
        "[...document.querySelectorAll('#trials th button')].find((each) => each.textContent === 'held-out forg.').id = 'by-loss'"
    )
    tab.click("#by-loss")
    tab.click("#trials tbody tr td:nth-child(2)")
    assert tab.run(CHOSEN) == tab.run("document.querySelector('#trials tbody tr').title")
    assert tab.run("document.querySelectorAll('#matrix td').length") == 6 * 13
    assert tab.run(WIDER) <= 0
    for value in tab.run("[...document.querySelector('#measure').options].map((each) => each.value)"):
        tab.run(
            f"(() => {{ const list = document.querySelector('#measure'); list.value = {value!r}; list.onchange(); }})()"
        )


def test_the_mouse_shows_what_a_point_is_and_a_click_selects_it(tab: Browser, tmp_path: Path) -> None:
    results = make_sweep(recipes=["sa_proj", "full"], rates=[1e-5, 1e-4])
    show(tab, results, tmp_path)
    other = next(trial for trial in results.trials if trial.name != tab.run(CHOSEN))
    found = f"""(() => {{
      const chart = document.querySelector('#scatter'), learning = {other.measure("learning")}, held = {other.measure("held_out_forgetting")};
      chart.scrollIntoView({{ block: 'center' }});
      const box = chart.getBoundingClientRect(), at = chart._fullLayout;
      return [box.x + at.xaxis._offset + at.xaxis.d2p(learning), box.y + at.yaxis._offset + at.yaxis.d2p(held)];
    }})()"""
    x, y = tab.run(found)
    tab.point(x, y)
    tab.wait("document.querySelector('#scatter .hoverlayer').textContent.includes('learning')")
    told = tab.run("document.querySelector('#scatter .hoverlayer').textContent")
    assert other.name in told and f"{other.axes['recipe']}" in told and "[" in told
    for kind in ("mousePressed", "mouseReleased"):
        tab.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
    tab.wait(f"{CHOSEN} === {other.name!r}")


def test_the_front_and_the_intervals_are_drawn(tab: Browser, tmp_path: Path) -> None:
    show(tab, make_sweep(recipes=["sa_proj", "gate_up", "full"], rates=[1e-5, 1e-4]), tmp_path)
    fronts = tab.run(
        "document.querySelector('#scatter').data.filter((each) => each.line && each.line.dash === 'dash').map((each) => each.x.length)"
    )
    assert fronts == [
        tab.run(
            "[...document.querySelectorAll('#trials tbody tr')].filter((row) => row.cells[0].textContent === '★').length"
        )
    ]
    assert tab.run("document.querySelectorAll('#scatter .errorbar').length") == 6


def test_the_advice_follows_the_readers_budget(tab: Browser, tmp_path: Path) -> None:
    show(tab, small_sweep(), tmp_path)
    picks = [
        tab.run(
            f"(() => {{ const box = document.querySelector('#budget'); box.value = {points}; box.oninput(); return {PICK}; }})()"
        )
        for points in (0, 2, 1000)
    ]
    assert "No finished trial" in picks[0] and picks[1].startswith("Take sa_proj") and picks[2].startswith("Take full")


def test_everything_can_be_done_with_the_keyboard(tab: Browser, tmp_path: Path) -> None:
    results = make_sweep(recipes=["sa_proj", "full"], rates=[1e-5, 1e-4])
    show(tab, results, tmp_path)
    order = [trial.name for trial in sorted(results.trials, key=lambda trial: trial.measure("learning") or 0.0)]
    seen: list[str] = []
    while "TR" not in seen and len(seen) < 200:  # from the top of the page to the first row of the table
        tab.press("Tab")
        seen.append(
            tab.run(
                "(({ id, tagName, className }) => id || (tagName === 'TR' ? tagName : className || tagName))(document.activeElement)"
            )
        )
    assert {"budget", "chip", "bars", "scatter", "measure", "trial"} <= set(seen) and "TR" in seen
    tab.run("document.querySelector('#scatter').focus()")
    for _ in order:
        tab.press("ArrowLeft")
    assert tab.run(CHOSEN) == order[0]
    tab.press("ArrowRight")
    assert tab.run(CHOSEN) == order[1] and order[1] in tab.run("document.querySelector('#scatter-told').textContent")
    tab.wait(
        f"document.querySelector('#scatter .hoverlayer').textContent.includes({order[1]!r})", 10
    )  # drawn a little later
    tab.run("document.querySelector('.chip').focus()")
    tab.press(" ")
    assert tab.run(ROWS) == 2
    tab.run("document.querySelector('#trials tbody tr').focus()")
    tab.press("Enter")
    assert tab.run(CHOSEN) == tab.run("document.querySelector('#trials tbody tr').title")


def test_cells_probes_bars_and_costs_are_shown_where_a_sweep_has_them(tab: Browser, tmp_path: Path) -> None:
    results = make_sweep(recipes=["sa_proj", "gate_up", "full"], rates=[1e-5, 1e-4], mitigations=[None, "wise_ft"])
    results = replace(results, trials=[with_cells(trial) for trial in results.trials])
    show(tab, results, tmp_path)
    count = "document.querySelector('#{}').data.reduce((sum, each) => sum + each.x.length, 0)"
    assert tab.run(count.format("cells")) == 12 * 3, "three cells with benchmarks, for each trial"
    assert tab.run(count.format("probes")) == 12 * 5, "five stages after the first, for each trial"
    assert "Spearman" in tab.run("document.querySelector('#probe-note').textContent")
    assert tab.run(count.format("first")) == 12 * 2, "each trial with its interval, in learning and in forgetting"
    assert tab.run("document.querySelectorAll('#first .errorbar').length") == 12 * 2
    texts = tab.run("[...document.querySelectorAll('#cells-table td')].map((each) => each.textContent)")
    assert (
        texts[0].startswith("+20.0")
        and "shape, relation" in texts[1]
        and "colour" in texts[2]
        and texts[3] == "–no benchmark"
    )
    tab.run("(() => { const list = document.querySelector('#cells-stage'); list.value = '1'; list.onchange(); })()")
    assert tab.run("document.querySelector('#cells-table td').textContent").endswith("birds")
    rows = tab.run(
        "[...document.querySelectorAll('#costs tbody tr')].map((row) => [...row.cells].map((cell) => cell.firstChild.textContent))"
    )
    assert len(rows) == 6 and rows[0][:4] == ["sa_proj", "none", "2", "818 M"]
    picture(tab, "page", tmp_path)


def test_a_probe_that_looked_inside_stages_is_drawn_over_their_updates(tab: Browser, tmp_path: Path) -> None:
    results = make_sweep(recipes=["sa_proj", "full"], rates=[1e-5], updates=40)
    rows = [{"update": update, "bias": update / 10} for update in (0, 1, 10, 40)]

    def with_curve(trial: TrialResult) -> TrialResult:
        return replace(
            trial, stages=[replace(s, probe_curve=rows if s.number else ()) for s in with_cells(trial).stages]
        )

    show(tab, replace(results, trials=[with_curve(trial) for trial in results.trials]), tmp_path)
    assert not tab.run("document.querySelector('#inside-figure').hidden")
    assert tab.run("document.querySelector('#inside').data.length") == 2, "a line a trial"
    assert tab.run("[...document.querySelector('#inside').data[0].x].slice(0, 6)") == [0, 1, 10, 40, 40, 41]
    picture(tab, "inside", tmp_path)
    show(tab, replace(results, trials=[with_cells(trial) for trial in results.trials]), tmp_path)
    assert tab.run("document.querySelector('#inside-figure').hidden")


def test_what_a_sweep_has_not_is_not_shown(tab: Browser, tmp_path: Path) -> None:
    show(tab, make_sweep(recipes=["full"], rates=[1e-5]), tmp_path)
    for id in ("cells-section", "probe-section", "answers-section", "pair-section", "spread-section", "seeds-control"):
        assert tab.run(f"document.querySelector('#{id}').hidden")
    show(tab, SweepResults("empty", []), tmp_path)
    assert tab.run("document.querySelector('#advice').hidden")


def test_a_phone_shows_it_in_one_column(tab: Browser, tmp_path: Path) -> None:
    results = make_sweep(recipes=["sa_proj", "full"], rates=[1e-5, 1e-4])
    show(
        tab,
        replace(results, trials=[with_cells(trial) for trial in results.trials]),
        tmp_path,
        width=390,
        height=844,
        phone=True,
    )
    assert tab.run("innerWidth") == 390 and tab.run(WIDER) <= 0
    widths = tab.run(
        "[...document.querySelectorAll('.js-plotly-plot .main-svg:first-child')].map((each) => each.getBoundingClientRect().width)"
    )
    assert len(widths) == 6 and all(200 < width <= 390 for width in widths)
    picture(tab, "page-phone", tmp_path)


def test_paper_has_the_advice_with_its_budget_and_every_chart(tab: Browser, tmp_path: Path) -> None:
    results = make_sweep(recipes=["sa_proj", "full"], rates=[1e-5, 1e-4])
    show(tab, replace(results, trials=[with_cells(trial) for trial in results.trials]), tmp_path)
    tab.call("Emulation.setEmulatedMedia", media="print")
    seen = tab.run(
        "['#budget', '#measure', '#trial', '#scatter', '#costs', '#bars'].map((each) => document.querySelector(each).offsetParent !== null)"
    )
    tab.call("Emulation.setEmulatedMedia", media="")
    assert seen == [True, True, True, True, True, False]
    made = tab.paper(Path(os.environ.get("LMMCL_TEST_ARTEFACTS", tmp_path)) / "page.pdf")
    assert made.read_bytes().count(b"/Type /Page\n") >= 4
    assert tab.run("document.querySelector('#scatter .main-svg').getBoundingClientRect().width") > 900, "wide again"


def test_seeds_are_one_point_until_each_is_asked_for(tab: Browser, tmp_path: Path) -> None:
    results = make_sweep(recipes=["sa_proj", "full"], rates=[1e-5], seeds=3, updates=2)
    data = page_data(results)
    assert (len(data["trials"]), len(data["single"]["trials"])) == (2, 6)
    show(tab, results, tmp_path)
    assert tab.run(ROWS) == 2
    tab.click("#seeds")
    tab.wait(f"document.readyState === 'complete' && {ROWS} === 6")


def test_a_stage_is_drawn_along_its_training_with_its_best_moment(tab: Browser, tmp_path: Path) -> None:
    results = make_sweep(recipes=["sa_proj", "full"], rates=[1e-5], stages=1)
    points = ((0, 0.0, 0.0), (10, 6.0, 0.5), (20, 9.0, -1.0), (40, 12.0, -6.0))
    rows = [{"update": at, "learning": up, "held_out_forgetting": lost} for at, up, lost in points]
    both = ("learning", "held_out_forgetting")
    ends = {row["update"]: {name: (row[name] - 1.5, row[name] + 1.25) for name in both} for row in rows[1:]}
    ends[0] = {"learning": (0.0, 0.0), "held_out_forgetting": (0.0, 0.0)}
    trials = [
        replace(
            trial,
            stages=[replace(s, score_curve=rows, moment_intervals=ends) if s.number else s for s in trial.stages],
        )
        for trial in results.trials
    ]
    show(tab, replace(results, trials=trials), tmp_path)
    assert not tab.run("document.querySelector('#along-section').hidden")
    assert tab.run("document.querySelector('#along').data.length") == 2, "a line a trial"
    assert tab.run("[...document.querySelector('#along').data[0].x]") == [0, 6, 9, 12]
    note = tab.run("document.querySelector('#along-note').textContent")
    assert "best after 20 updates, learning +9.0 [+7.5, +10.2], held-out forgetting -1.0 [-2.5, +0.2]" in note
    for axis in ("error_x", "error_y"):
        arms = f"document.querySelector('#along').data[0].{axis}"
        assert tab.run(f"[...{arms}.array]") == [0, 1.25, 1.25, 1.25], "at every moment, not at the end alone"
        assert tab.run(f"[...{arms}.arrayminus]") == [0, 1.5, 1.5, 1.5]
    tab.run("(() => { const budget = document.querySelector('#budget'); budget.value = '10'; budget.oninput(); })()")
    assert "best after 40 updates" in tab.run("document.querySelector('#along-note').textContent")
    assert tab.run("[...document.querySelector('#along').data[0].marker.size]") == [6, 6, 6, 13]
    picture(tab, "along", tmp_path)
    show(tab, results, tmp_path)
    assert tab.run("document.querySelector('#along-section').hidden")
