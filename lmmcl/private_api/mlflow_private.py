"""Private parts of MLflow's page: shared views, addresses, colours, notes, and tables among the artifacts.

And of its client: what it keeps of runs to which files were logged.
"""

from __future__ import annotations

import colorsys
import json
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlencode

NEWEST = (3, 17)
"""The newest minor version of MLflow whose page was looked at."""
OLDEST_VIEW = (3, 15)
"""The oldest whose page is known to show a shared view."""
GOLDEN_ANGLE = 0.381966
COLOUR_TAG = "mlflow.runColor"
"""The colour of a run, which the page otherwise draws from a few by chance: two of six runs often share one."""
NOTE_TAG = "mlflow.note.content"
"""Markdown that stands above a run or an experiment."""
TABLES_TAG = "mlflow.loggedArtifacts"
"""Which artifacts of a run the page offers as tables."""


def view_tag(view: str) -> str:
    """The tag of an experiment that keeps the shared view of this name."""
    return f"mlflow.sharedViewState.{view}"


def runs_address(experiment_id: str, *, view: str | None, chart: bool, search: str, sort: str) -> str:
    """The part after the server's address that opens the runs of an experiment, as a table or as charts.

    With `view` as the shared view of that name has them; without, as the page's own parameters say, which have no columns and
    no chart of two metrics. Pages open on their part for agents unless the address has a `workflowType`.
    """
    words = {"workflowType": "machine_learning"}
    words |= {"compareRunsMode": "CHART"} if chart else {}
    words |= (
        {"viewStateShareKey": view} if view else {"searchFilter": search, "orderByKey": sort, "orderByAsc": "false"}
    )
    return f"#/experiments/{experiment_id}/runs?{urlencode(words, quote_via=quote)}"


def comparison_address(experiment_id: str, run_ids: Sequence[str]) -> str:
    """The part after the server's address that opens the comparison of these runs."""
    words = {"runs": json.dumps(list(run_ids)), "experiments": json.dumps([experiment_id])}
    return f"#/compare-runs?{urlencode(words, quote_via=quote)}"


def files_address(experiment_id: str, run_id: str) -> str:
    """The part after the server's address that opens the files of a run."""
    return f"#/experiments/{experiment_id}/runs/{run_id}/artifacts"


def trade_off_view(name: str, title: str, *, x: str, y: str, search: str, section: str) -> str:
    """The state of the page of runs: a table with the metrics `x` and `y`, the best `y` first, and a chart that draws one
    against the other, for the runs that `search` finds.

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
        "orderByKey": metric_column(y),
        "orderByAsc": False,
        "selectedColumns": [metric_column(x), metric_column(y)],
        "runsHiddenMode": "SHOW_ALL",  # else charts show the first ten runs
        "compareRunCharts": [chart],
        "compareRunSections": [{**place, "columns": 1, "cardHeight": 560}],
    }
    saved = {"name": name, "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)}
    return json.dumps({**state, **saved})


def metric_column(metric: str) -> str:
    """The column of a metric as the page names it."""
    return f"metrics.`{metric}`"


def is_view_supported(version: str) -> bool:
    """Whether the pages of this version of MLflow are known to show a shared view."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    return OLDEST_VIEW <= numbers <= NEWEST


def run_colour(index: int) -> str:
    """The colour of the run with this number: neighbours are far apart on the colour wheel, and no two are equal."""
    lightness, saturation = ((0.42, 0.65), (0.58, 0.75), (0.32, 0.55))[index // 8 % 3]
    parts = colorsys.hls_to_rgb(index * GOLDEN_ANGLE % 1, lightness, saturation)
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)


def forget_artifacts(run_id: str) -> None:
    """Let go of what MLflow's client keeps of a run to which files were logged: for each of the last 1,024 a client of the place
    where its files are, with threads and queues of its own."""
    from mlflow.tracking._tracking_service import utils

    utils._artifact_repos_cache.pop(run_id, None)


def tables_value(names: Sequence[str]) -> str:
    """The value of `TABLES_TAG` for these artifacts."""
    return json.dumps([{"path": name, "type": "table"} for name in names])
