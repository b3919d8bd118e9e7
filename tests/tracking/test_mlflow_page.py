"""MLflow's own pages, in a browser: they open on trials with both measures, and the trade-off is one click away.

Pictures are left in the folder that LMMCL_TEST_ARTEFACTS names, for a person to look at.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser, browser
from synthetic_results import make_sweep

from lmmcl.maintenance.screenshots import mlflow_server, write_pictures
from lmmcl.tracking.first_screen import trials_address

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path"),
]
SWEEP = make_sweep(recipes=["sa_proj", "full"], rates=[1e-5, 1e-4], updates=2)
MLFLOWS_OWN = ("users/current", "assistant")  # what a server without accounts and assistants does not have
TEXT = "document.body.innerText"
DRAWN = "[...document.querySelectorAll('.js-plotly-plot')].flatMap((chart) => (chart.data || []).filter((each) => /^scatter/.test(each.type)).flatMap((each) => [...each.x])).length"


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the saved view on a server that holds a made-up sweep."""
    with mlflow_server(SWEEP, tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


def server(view: str) -> str:
    return view.split("#")[0]


def ours(faults: list[str]) -> list[str]:
    return [fault for fault in faults if not any(known in fault for known in MLFLOWS_OWN)]


def picture(tab: Browser, name: str, folder: Path) -> None:
    tab.picture(Path(os.environ.get("LMMCL_TEST_ARTEFACTS", folder)) / f"{name}.png")


TIP = "[...document.querySelectorAll('button')].find((each) => each.textContent.trim() === 'Got it')"


def put_tip_away(tab: Browser) -> None:
    """MLflow shows a tip of its own on a first visit, which covers the page until a person has read it."""
    if tab.run(f"Boolean({TIP})"):
        tab.run(f"Object.assign({TIP}, {{ id: 'tip' }}).id")
        tab.click("#tip")
        tab.wait(f"!{TIP}", 30)


def follow(tab: Browser, text: str, part: str) -> str:
    """Click the link of this text until a tab's address has this part, and return that address."""
    find = f"[...document.querySelectorAll('a')].find((each) => each.textContent.trim() === {text!r})"
    tab.wait(f"Boolean({find})", 180)
    for _ in range(10):
        put_tip_away(tab)
        tab.run(f"Object.assign({find}, {{ id: 'wanted' }}).id")
        tab.click("#wanted")
        end = time.monotonic() + 5
        while time.monotonic() < end:
            if found := [address for address in tab.tabs() if part in address]:
                return found[0]
            time.sleep(0.2)
    raise AssertionError(f"{text!r} leads nowhere: {tab.tabs()}")


def test_the_printed_address_opens_on_trials_with_both_measures_and_the_best_first(
    tab: Browser, view: str, tmp_path: Path
) -> None:
    tab.open(server(view) + trials_address("1", view=True), 1500, 1000)
    tab.wait(f"{TEXT}.includes('sa_proj') && {TEXT}.includes('held_out_forget')", 240)
    put_tip_away(tab)
    text = tab.run(TEXT)
    assert "learning" in text and "4 matching runs" in text, "trials and nothing else"
    names = [f"{trial.axes['recipe']} · lr {trial.axes['learning_rate']:.0e}" for trial in SWEEP.trials]
    assert all(name in text and f"{name} · s0" not in text for name in names), "names without what all trials share"
    best = max(SWEEP.trials, key=lambda trial: trial.measure("held_out_forgetting") or 0.0)
    assert min(names, key=text.index) == names[SWEEP.trials.index(best)]
    colours = set(tab.run("[...document.querySelectorAll('label,button,span')].map((each) => each.textContent.trim())"))
    assert len({each for each in colours if each.startswith("#") and len(each) == 7}) == 4, "each has its own"
    picture(tab, "mlflow-trials", tmp_path)


def test_one_click_leads_from_there_to_the_trade_off(tab: Browser, view: str, tmp_path: Path) -> None:
    tab.open(server(view) + trials_address("1", view=True), 1500, 1000)
    opened = follow(tab, "held-out forgetting against learning", "compareRunsMode=CHART")
    tab.open(opened, 1500, 1000)
    tab.wait(f"{DRAWN} >= 4 && {TEXT}.includes('score')", 240)
    text = tab.run(TEXT)
    assert "learning against forgetting" in text, "the name of the saved view"
    assert "held_out_forgetting" in text and text.index("Trade-off") < text.index("score"), "our chart comes first"
    assert "sa_proj" in text and "4 matching runs" in text and "Error loading" not in text
    picture(tab, "mlflow-trade-off", tmp_path)
    assert ours(tab.faults) == []


def test_two_clicks_lead_there_from_the_list_of_experiments(tab: Browser, view: str) -> None:
    tab.open(f"{server(view)}#/experiments", 1500, 1000)
    follow(tab, SWEEP.name, "#/experiments/1")
    opened = follow(tab, "held-out forgetting against learning", "viewStateShareKey")
    assert opened.split("#")[1].startswith(view.split("#")[1])


def press(tab: Browser, find: str) -> None:
    """Click the element that a JavaScript expression finds, as soon as it is there."""
    tab.wait(f"Boolean({find})", 120)
    tab.run("document.querySelectorAll('[data-pressed]').forEach((each) => each.removeAttribute('data-pressed'))")
    tab.run(f"{find}.setAttribute('data-pressed', '')")
    tab.click("[data-pressed]")


def with_text(selector: str, text: str) -> str:
    found = f"[...document.querySelectorAll({selector!r})]"
    return f"{found}.find((each) => each.textContent.trim() === {text!r})"


def test_mlflows_own_comparison_shows_the_trade_off(tab: Browser, view: str, tmp_path: Path) -> None:
    tab.open(server(view) + trials_address("1", view=True), 1500, 1400)
    tab.faults.clear()
    tab.wait(f"{TEXT}.includes('sa_proj')", 240)
    put_tip_away(tab)
    press(tab, "document.querySelector('.ag-header-select-all input, .ag-header input[type=checkbox]')")
    press(tab, with_text("button", "Compare"))
    tab.wait("location.href.includes('compare-runs')", 120)
    tab.wait(
        "[...document.querySelectorAll('.js-plotly-plot')].some((each) => each.data?.[0]?.type === 'parcoords')", 240
    )
    axes = "document.querySelector('.js-plotly-plot').data[0].dimensions.map((each) => each.label)"
    assert tab.run(axes)[-1] == "held_out_forgetting" and "recipe" in tab.run(axes), "the coordinates it begins with"
    picture(tab, "mlflow-compare", tmp_path)
    press(tab, with_text("[role=tab]", "Scatter Plot"))
    for axis, metric in (("x", "learning"), ("y", "held_out_forgetting")):
        press(tab, f"document.querySelector('#{axis}-axis-selector')")
        press(tab, with_text("[role=option]", metric))
        tab.wait(f"document.querySelector('#{axis}-axis-selector').textContent.trim() === {metric!r}", 60)
    values = [trial.measure("held_out_forgetting") for trial in SWEEP.trials]
    drawn = "[...document.querySelectorAll('.js-plotly-plot')].flatMap((chart) => chart.data.flatMap((each) => [...(each.y || [])]))"
    tab.wait(f"{drawn}.filter((each) => each < 0).length === {len(values)}", 60)
    assert sorted(tab.run(drawn)) == pytest.approx(sorted(values))
    picture(tab, "mlflow-compare-scatter", tmp_path)
    assert ours(tab.faults) == []


def test_pictures_for_a_readme_are_written_and_small(tmp_path: Path) -> None:
    files, missing = write_pictures(SWEEP, tmp_path)
    assert missing == [] and [file.name for file in files] == ["tradeoff.png", "page.png", "mlflow.png"]
    assert all(10_000 < file.stat().st_size < 150_000 for file in files)
