"""What MLflow is given so that its pages open on trials and their trade-off."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs

import pytest

from lmmcl.private_api.mlflow_private import NEWEST, is_view_supported, run_colour
from lmmcl.tracking.first_screen import experiment_note, shared_view, trials_address
from lmmcl.tracking.server_version import are_views_supported


class Version(BaseHTTPRequestHandler):
    """A server that tells a version, or does not."""

    answer: str | None = "3.15.2"

    def do_GET(self) -> None:
        self.send_response(200 if self.answer and self.path == "/version" else 404)
        self.end_headers()
        self.wfile.write((self.answer or "").encode())

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[str]:
    http = HTTPServer(("127.0.0.1", 0), Version)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    http.server_close()


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


@pytest.mark.parametrize(
    ("version", "supported"),
    [("3.15.0", True), (".".join(map(str, NEWEST)) + ".9", True), ("3.14.2", False), ("9.0.0rc1", False), ("", False)],
)
def test_views_are_for_versions_whose_pages_were_looked_at(version: str, supported: bool) -> None:
    assert is_view_supported(version) is supported


def test_a_server_says_which_version_its_pages_are_of(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert are_views_supported(server)
    for answer in ("2.9.0", None):
        monkeypatch.setattr(Version, "answer", answer)
        assert not are_views_supported(server)
    assert are_views_supported("sqlite:///a.db"), "the pages are those of the installed version"


def test_colours_of_runs_differ() -> None:
    colours = [run_colour(number) for number in range(100)]
    assert len(set(colours)) == 100 and all(len(colour) == 7 for colour in colours)
