from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from synthetic_results import make_sweep, make_trial

from lmmcl.reports.page.page import page, write_page
from lmmcl.reports.page.page_data import page_data, thinned
from lmmcl.reports.recommend import choice_lines, recommend, recommendation
from lmmcl.reports.results import SweepResults

EVIL = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)> {{plotly}} \u2028 'q' \"d\" &amp;"


class Scripts(HTMLParser):
    """The scripts of a page as a browser finds them, and every address it would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "script":
            self.scripts.append("")
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href") and value != "data:,"]

    def handle_data(self, data: str) -> None:
        if self.lasttag == "script" and self.scripts:
            self.scripts[-1] += data


def small_sweep() -> SweepResults:
    """Ten trials of all kinds: finished ones, with and without mitigation, a failed one and one that has not begun."""
    trials = list(make_sweep(recipes=["sa_proj", "full"], rates=[1e-5, 3e-5], mitigations=[None, "wise_ft"]).trials)
    trials[0] = replace(trials[0], stages=[replace(stage, probes={"bias": 0.1}) for stage in trials[0].stages])
    trials.append(make_trial("mlp", stages=2, state="failed", error="out of memory"))
    trials.append(replace(make_trial("llm"), stages=[], state="partial"))
    return SweepResults(
        "small", trials, "sweeps/small.yaml", {"commit": "0123abc", "versions": {"torch": "2.13.0"}}, 100, 90
    )


@pytest.fixture(scope="module")
def small() -> SweepResults:
    return small_sweep()


def embedded(text: str) -> dict[str, Any]:
    return json.loads(Scripts(text).scripts[0])


def test_the_page_is_one_file_that_fetches_nothing(small: SweepResults, tmp_path: Path) -> None:
    write_page(small, tmp_path / "new" / "page.html")
    text = (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    found = Scripts(text)
    assert found.fetched == []
    assert len(found.scripts) == 3 and len(found.scripts[1]) > 1_000_000  # data, plotly, ours
    assert not re.search(r"\{\{\w+\}\}", found.scripts[0] + found.scripts[2])


def test_the_page_holds_every_trial_with_its_numbers(small: SweepResults) -> None:
    data = embedded(page(small))
    assert len(data["trials"]) == len(small.trials)
    best = max((trial for trial in small.trials if trial.state == "done"), key=lambda trial: trial.measure("learning"))
    assert data["trials"][0]["name"] == best.name and data["trials"][0]["front"]
    last = data["trials"][0]["stages"][-1]
    assert last["measures"][0] == pytest.approx(best.measure("learning"), rel=1e-4)
    assert last["intervals"][0] == pytest.approx(best.interval("learning"), rel=1e-4)
    assert data["trials"][-1]["error"] == "out of memory" and data["trials"][-1]["reached"] == "failed 2/5"


def test_the_header_says_what_was_counted_and_what_made_the_numbers(small: SweepResults) -> None:
    facts = dict(page_data(small)["facts"])
    assert facts["trials"] == "10 (8 done, 1 partial, 1 failed)"
    assert facts["steps"] == "90 of 100 recorded"
    assert facts["commit"] == "0123abc" and facts["versions"] == "torch 2.13.0" and facts["order"] == "main"


def test_no_string_of_a_sweep_can_become_markup() -> None:
    trial = make_trial()
    evil = replace(trial, name=EVIL, error=EVIL, axes={**trial.axes, "recipe": EVIL}, state="failed")
    text = page(SweepResults(EVIL, [evil], EVIL, {EVIL: EVIL}))
    plain = page(SweepResults("s", [trial], "f", {"a": "b"}))
    assert Scripts(text).tags == Scripts(plain).tags
    data = embedded(text)
    assert data["name"] == data["trials"][0]["error"] == EVIL


def test_our_script_never_writes_markup() -> None:
    script = Scripts(page(make_sweep(recipes=["full"], rates=[1e-5]))).scripts[2]
    assert "textContent" in script
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", script)


def test_what_is_not_a_number_is_null_in_the_page() -> None:
    trial = make_trial(stages=1)
    broken = replace(trial.stages[-1], scores={"birds": float("nan")}, measures={"learning": float("inf")})
    data = embedded(page(SweepResults("s", [replace(trial, stages=[trial.stages[0], broken])])))
    stage = data["trials"][0]["stages"][1]
    assert set(stage["scores"]) == {None} and stage["measures"] == [None] * 4


def test_an_empty_sweep_still_makes_a_page() -> None:
    assert embedded(page(SweepResults("empty", [])))["trials"] == []


def test_a_thousand_trials_stay_below_fifteen_megabytes() -> None:
    one = make_trial(updates=1200)
    trials = [replace(one, key=f"{number:x}", name=f"trial {number}") for number in range(1000)]
    assert len(page(SweepResults("large", trials)).encode()) < 15_000_000


def test_a_thinned_curve_keeps_its_ends_and_its_shape() -> None:
    rows = [{"update": float(number)} for number in range(1, 1001)]
    kept = [row["update"] for row in thinned(rows, 50)]
    assert len(kept) == 50 and kept[0] == 1 and kept[-1] == 1000
    assert max(right - left for left, right in itertools.pairwise(kept)) <= 22
    assert thinned(rows[:50], 50) == rows[:50]


def test_the_page_advises_as_the_terminal_does(small: SweepResults) -> None:
    data = page_data(small)
    names = {trial["name"]: place for place, trial in enumerate(data["trials"])}
    for choice, shown in zip(recommend(small)[0].choices, data["advice"]["groups"][0]["choices"], strict=True):
        assert names[choice.trial.name] == shown["trial"]
        assert shown["lines"] == choice_lines(small, choice) and set(shown["lines"]) <= set(
            recommendation(small, shown["leastBudget"])
        )
