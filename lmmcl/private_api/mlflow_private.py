"""Private parts of MLflow's page: tags by which it knows shared views of its charts, notes, and tables among the artifacts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

NEWEST = (3, 17)
"""The newest minor version of MLflow whose page was looked at."""
NOTE_TAG = "mlflow.note.content"
"""Markdown that stands above a run or an experiment."""
TABLES_TAG = "mlflow.loggedArtifacts"
"""Which artifacts of a run the page offers as tables."""


def view_tag(view: str) -> str:
    """The tag of an experiment that keeps the shared view of this name."""
    return f"mlflow.sharedViewState.{view}"


def view_address(experiment_id: str, view: str) -> str:
    """The part after the server's address that opens a shared view."""
    query = f"compareRunsMode=CHART&viewStateShareKey={view}&workflowType=machine_learning"
    return f"#/experiments/{experiment_id}/runs?{query}"


def scatter_view(name: str, title: str, *, x: str, y: str, search: str, section: str) -> str:
    """The state of the chart page that draws the metric `y` against `x` for the runs that `search` finds.

    Where a version does not know the format, the page opens as it would have. Versions with a menu of saved views list it
    there by its name; those before read the state itself, which is why it is there twice.
    """
    identity = section.lower().replace(" ", "-")
    chart: dict[str, Any] = {
        "type": "SCATTER",
        "uuid": "lmmcl-scatter",
        "metricSectionId": f"lmmcl-{identity}",
        "isGenerated": False,
        "deleted": False,
        "displayName": title,
        "runsCountToCompare": 500,
        "xaxis": {"key": x, "type": "METRIC"},
        "yaxis": {"key": y, "type": "METRIC"},
    }
    place = {"uuid": f"lmmcl-{identity}", "name": section, "display": True, "isReordered": False}
    state = {
        "isAccordionReordered": True,  # else sections are sorted by name, and this one is far down
        "searchFilter": search,
        "compareRunCharts": [chart],
        "compareRunSections": [{**place, "columns": 1, "cardHeight": 560}],
    }
    saved = {"name": name, "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)}
    return json.dumps({**state, **saved})


def tables_value(names: Sequence[str]) -> str:
    """The value of `TABLES_TAG` for these artifacts."""
    return json.dumps([{"path": name, "type": "table"} for name in names])
