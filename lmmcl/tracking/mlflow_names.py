"""Results in MLflow's words: names that it takes, values as text, portions that stay under its limits. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from lmmcl.measures import EQUAL_TO
from lmmcl.reports.results import StageResult, TrialResult, finite, finite_pair

BATCH = {"metrics": 1000, "params": 100, "tags": 100}
LONGEST_PARAM = 6000
FIRST = ("held_out_forgetting", "learning")
CURVE, INSIDE, PACE = "train/", "inside/", "updates_per_second"
OFF_THE_CURVE = ("update", PACE)  # the x axis; and what says nothing of learning but costs a third more


def batches(*lists: Sequence[Any]) -> Iterable[tuple[list[Any], ...]]:
    """(metrics, params, tags) in portions that `log_batch` takes: 1000, 100, 100, and 1000 altogether.

    Tags come with the last metrics: they say what has been logged, and a store writes the tags of a portion last.
    """
    metrics, params, tags = map(list, lists)
    while metrics or params or tags:
        few_params, params = params[: BATCH["params"]], params[BATCH["params"] :]
        room = BATCH["metrics"] - len(few_params)
        few_tags = [] if len(metrics) > room - min(len(tags), BATCH["tags"]) else tags[: BATCH["tags"]]
        few_metrics, metrics = metrics[: room - len(few_tags)], metrics[room - len(few_tags) :]
        tags = tags[len(few_tags) :]
        yield few_metrics, few_params, few_tags


def stage_metrics(stage: StageResult) -> dict[str, float]:
    """All numbers of a stage by MLflow name: measures with their ends, `score/<benchmark>`, `cost/<what>`.

    Of measures that are equal by definition (see `EQUAL_TO`) MLflow gets one. Its comparison of runs begins with the metric that
    was logged first.
    """
    measures = {name: finite(value) for name, value in stage.measures.items() if name not in EQUAL_TO}
    metrics: dict[str, float | None] = {name: measures[name] for name in FIRST if name in measures}
    metrics |= measures
    for name, interval in stage.intervals.items():
        if name not in EQUAL_TO and (pair := finite_pair(interval)) is not None:
            metrics |= {f"{name}_low": pair[0], f"{name}_high": pair[1]}
    metrics |= {f"score/{name}": finite(value) for name, value in stage.scores.items()}
    metrics |= {f"cost/{name}": finite(value) for name, value in stage.cost.items()}
    metrics |= {f"probe/{name}": finite(value) for name, value in stage.probes.items()}
    return {metric_name(name): value for name, value in metrics.items() if value is not None}


def pace_metrics(stage: StageResult) -> dict[str, float]:
    """The mean number of updates a second in a stage, where it is known."""
    paces = [pace for row in stage.curve if (pace := finite(row.get(PACE))) is not None]
    return {f"cost/{PACE}": sum(paces) / len(paces)} if paces else {}


def curve_values(stage: StageResult, after: int = -1) -> Iterator[tuple[int, dict[str, float]]]:
    """(update, {name: value}) of all curves of a stage: `train/<what>`, of that only what comes `after` an update; and what was
    asked inside it: `inside/<measure>`, `inside/score/<benchmark>`, `inside/probe/<what>`."""
    for prefix, rows in ((CURVE, stage.curve), (INSIDE, stage.score_curve), (f"{INSIDE}probe/", stage.probe_curve)):
        for row in rows:
            update = finite(row.get("update"))
            if update is not None and (prefix != CURVE or update > after):
                values = {prefix + name: finite(value) for name, value in row.items() if name not in OFF_THE_CURVE}
                yield int(update), {metric_name(name): value for name, value in values.items() if value is not None}


def metric_name(name: str) -> str:
    """The name with what MLflow refuses replaced by `_`; a path part is never empty, `.` or `..`."""
    parts = (re.sub(r"[^\w\-. :]", "_", part, flags=re.ASCII) for part in name.split("/"))
    return "/".join("_" * max(1, len(part)) if part.strip(".") == "" else part for part in parts)[:250]


def matrix_table(trial: TrialResult) -> str:
    """The stage × benchmark matrix as the JSON table that MLflow's pages draw; scores in points, unknown ones null."""
    benchmarks = trial.benchmarks()
    rows = [
        [stage.number, stage.skill, *(finite(stage.scores.get(name)) for name in benchmarks)] for stage in trial.stages
    ]
    return json.dumps({"columns": ["stage", "skill", *benchmarks], "data": rows}, allow_nan=False)


def trial_params(trial: TrialResult) -> dict[str, str]:
    """The grid point as text by MLflow name, and the logarithm of the learning rate."""
    params = {
        metric_name(axis): value
        if isinstance(value, str)
        else "none"
        if value is None
        else json.dumps(value, default=str)
        for axis, value in trial.axes.items()
    }
    rate = finite(trial.axes.get("learning_rate"))
    if rate is not None and rate > 0:  # MLflow's compare page prints 5e-6 as 0.00000
        params["log10_learning_rate"] = f"{math.log10(rate):.4f}"
    return {name: value[:LONGEST_PARAM] for name, value in params.items()}
