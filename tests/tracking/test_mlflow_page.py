"""MLflow's own pages, in a browser: from its list of experiments the trade-off is two clicks away.

Pictures are left in the folder that LMMCL_TEST_ARTEFACTS names, for a person to look at.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser, browser
from synthetic_results import make_sweep

from lmmcl.maintenance.screenshots import mlflow_server, write_pictures
from lmmcl.tracking.tracker import quiet_client

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


def test_two_clicks_lead_from_the_list_of_experiments_to_the_trade_off(tab: Browser, view: str, tmp_path: Path) -> None:
    tab.open(f"{server(view)}#/experiments", 1500, 1000)
    follow(tab, SWEEP.name, "#/experiments/1")
    opened = follow(tab, "held-out forgetting against learning", "viewStateShareKey")
    assert opened.split("#")[1] == view.split("#")[1]
    tab.open(opened, 1500, 1000)
    tab.wait(f"{DRAWN} >= 4", 240)
    text = tab.run(TEXT)
    assert "learning against forgetting" in text, "the name of the saved view"
    assert "held_out_forgetting" in text and text.index("Trade-off") < text.index("score"), "our chart comes first"
    assert "sa_proj" in text and "4 matching runs" in text and "Error loading" not in text
    picture(tab, "mlflow-trade-off", tmp_path)
    assert ours(tab.faults) == []


def test_the_comparison_of_runs_has_their_points_and_short_parameters(tab: Browser, view: str, tmp_path: Path) -> None:
    client = quiet_client(f"sqlite:///{next(tmp_path.parent.glob('server*'))}/mlflow.db")
    (experiment,) = [each for each in client.search_experiments() if each.name == SWEEP.name]
    runs = client.search_runs([experiment.experiment_id], "tags.`lmmcl.kind` = 'trial'")
    tab.faults.clear()
    ids = json.dumps([run.info.run_id for run in runs])
    tab.open(f'{server(view)}#/compare-runs?runs={ids}&experiments=["{experiment.experiment_id}"]', 1500, 1400)
    tab.wait(f"{TEXT}.includes('held_out_forgetting') && {TEXT}.includes('sa_proj')", 240)
    tab.wait("document.querySelectorAll('.js-plotly-plot, .plot-container, canvas, svg.main-svg').length > 0", 120)
    text = tab.run(TEXT)
    assert "log10_learning_rate" in text and "learning" in text and "score/birds" in text
    picture(tab, "mlflow-compare", tmp_path)
    assert ours(tab.faults) == []


def test_pictures_for_a_readme_are_written_and_small(tmp_path: Path) -> None:
    files, missing = write_pictures(SWEEP, tmp_path)
    assert missing == [] and [file.name for file in files] == ["tradeoff.png", "page.png", "mlflow.png"]
    assert all(10_000 < file.stat().st_size < 150_000 for file in files)
