"""What MLflow is given so that its pages open on trials and their trade-off."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

import pytest

from lmmcl.tracking.first_screen import describe, experiment_note, shared_view, trials_address, write_note


def test_the_shared_view_has_both_measures_as_columns_and_as_axes_for_old_and_new_pages() -> None:
    saved = json.loads(shared_view())
    state = json.loads(saved["state"])
    for each in (saved, state):
        (chart,) = each["compareRunCharts"]
        assert (chart["xaxis"]["key"], chart["yaxis"]["key"]) == ("learning", "held_out_forgetting")
        assert chart["metricSectionId"] == each["compareRunSections"][0]["uuid"]
        assert each["selectedColumns"] == ["metrics.`learning`", "metrics.`held_out_forgetting`"]
        assert (each["orderByKey"], each["orderByAsc"]) == ("metrics.`held_out_forgetting`", False), (
            "the best comes first"
        )
    assert isinstance(saved["name"], str) and isinstance(saved["createdAt"], int)
    assert len(shared_view()) < 5000, "experiment tags are limited"


def test_the_address_has_the_view_where_it_is_supported_else_what_the_page_reads_by_itself() -> None:
    chart = trials_address("7", view=True, chart=True)
    assert chart == "#/experiments/7/runs?workflowType=machine_learning&compareRunsMode=CHART&viewStateShareKey=lmmcl"
    plain = parse_qs(trials_address("7", view=False).partition("?")[2])
    assert plain["searchFilter"] == ["tags.`lmmcl.kind` = 'trial'"]
    assert plain["orderByKey"] == ["metrics.`held_out_forgetting`"] and "viewStateShareKey" not in plain


def test_a_note_begins_with_its_links_and_compares_as_many_runs_as_it_has_room_for() -> None:
    few, many = ([f"{number:032x}" for number in range(count)] for count in (60, 61))
    note = experiment_note("7", view=True, compared=few, report=("8", "abc"))
    assert note.startswith("[held-out forgetting against learning](#/experiments/7/runs?") and len(note) < 5000
    assert "[report](#/experiments/8/runs/abc/artifacts)" in note.splitlines()[0] and few[-1] in note
    assert "compare-runs" not in experiment_note("7", view=True, compared=many)


EARLIER = (
    "Each run is a trial. Chart: [held-out forgetting against learning](#/experiments/7/runs?"
    "compareRunsMode=CHART&viewStateShareKey=lmmcl&workflowType=machine_learning)"
)
SIGNS = ". Signs: `held_out_forgetting`, `target_forgetting` below 0 and `chaudhry_forgetting` above 0 mean that something was forgotten."


class Tags:
    """The tags of an experiment, as a client that sets them has them."""

    def __init__(self, **tags: str) -> None:
        self.experiment_id, self.tags = "7", {"mlflow.note.content": tags["note"]}

    def set_experiment_tag(self, experiment_id: str, name: str, value: str) -> None:
        self.tags[name] = value


def described(note: str) -> str:
    """The note of an experiment that had `note`, after a run."""
    experiment: Any = Tags(note=note)
    describe(experiment, experiment, view=True)
    write_note(experiment, experiment, experiment_note("7", view=True, compared=["a", "b"]))
    return str(experiment.tags["mlflow.note.content"])


@pytest.mark.parametrize("note", [EARLIER, EARLIER + SIGNS])
def test_a_note_of_an_earlier_version_is_replaced(note: str) -> None:
    assert described(note) == experiment_note("7", view=True, compared=["a", "b"])


@pytest.mark.parametrize(
    "note",
    [
        f"{EARLIER}\n\nUse seed 3 for the paper.",
        f"{EARLIER}{SIGNS} Use seed 3 for the paper.",
        f"See the wiki. {EARLIER}",
        EARLIER.replace("/7/", "/8/"),
    ],
)
def test_what_a_person_added_to_a_note_of_an_earlier_version_stays(note: str) -> None:
    assert described(note) == note
