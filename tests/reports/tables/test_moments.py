"""The moment at which a stage would best have ended: chosen by learning under a budget of held-out forgetting."""

from __future__ import annotations

from dataclasses import replace

import pytest
from synthetic_results import make_trial

from lmmcl.reports.page.page_data import page_data
from lmmcl.reports.results import StageResult, SweepResults
from lmmcl.reports.tables.export import as_dict
from lmmcl.reports.tables.moments import best_moment, moment_rows, moments_markdown, moments_table


def stage(*points: tuple[int, float | None, float | None]) -> StageResult:
    rows = [
        {
            "update": update,
            **{name: value for name, value in (("learning", a), ("held_out_forgetting", b)) if value is not None},
        }
        for update, a, b in points
    ]
    return replace(make_trial(stages=1, updates=40).stages[1], score_curve=rows)


ALONG = stage((0, 0.0, 0.0), (10, 6.0, 0.5), (20, 9.0, -1.5), (30, 9.0, -1.0), (40, 12.0, -6.0))


@pytest.mark.parametrize(("budget", "update"), [(2.0, 30), (1.0, 30), (0.5, 10), (6.0, 40), (0.0, 10)])
def test_the_best_moment_learns_most_of_those_within_the_budget(budget: float, update: int) -> None:
    best = best_moment(ALONG, budget)
    assert best is not None and best.update == update, "of two that learn alike, the one that loses less"


def test_there_is_none_where_all_lose_more_or_nothing_was_asked() -> None:
    assert best_moment(stage((0, 0.0, 0.0), (10, 5.0, -3.0)), 2.0) is None, "the start of a stage cannot be chosen"
    assert best_moment(stage(), 2.0) is None
    assert best_moment(stage((10, 5.0, None)), 2.0) is None


def test_report_json_rows_and_page_tell_the_same_moment() -> None:
    trial = make_trial(stages=1, updates=40)
    results = SweepResults("s", [replace(trial, stages=[trial.stages[0], ALONG])])
    told = as_dict(results, 2.0)["trials"][0]["stages"][1]
    assert told["best_moment"] == {"update": 30, "learning": 9.0, "held_out_forgetting": -1.0}
    assert [row["update"] for row in told["score_curve"]] == [0, 10, 20, 30, 40]
    assert [row["update"] for row in moment_rows(results, 2.0) if row["best"]] == [30]
    along = page_data(results)["trials"][0]["stages"][1]["along"]
    allowed = [place for budget, place in along["front"] if budget <= 2.0]
    assert along["updates"][allowed[-1]] == 30
    assert "30 of 40 | +9.0 | -1.0" in moments_markdown(results, 2.0) and moments_table(results, 2.0) is not None
    assert "none of 40" in moments_markdown(results, -1.0)
    plain = SweepResults("s", [trial])
    assert moments_markdown(plain) == "" and moments_table(plain) is None
    assert as_dict(plain)["trials"][0]["stages"][1]["best_moment"] is None
