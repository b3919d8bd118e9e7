"""Results in MLflow's words: names that it takes, values as text, portions that stay under its limits. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from lmmcl.measures import EQUAL_TO
from lmmcl.reports.results import StageResult, TrialResult, finite, finite_pair

BATCH = {"metrics": 1000, "params": 100, "tags": 100}
LONGEST_PARAM = 6000


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

    Of measures that are equal by definition (see `EQUAL_TO`) MLflow gets one.
    """
    metrics: dict[str, float | None] = {f"score/{name}": finite(value) for name, value in stage.scores.items()}
    metrics |= {name: finite(value) for name, value in stage.measures.items() if name not in EQUAL_TO}
    for name, interval in stage.intervals.items():
        if name not in EQUAL_TO and (pair := finite_pair(interval)) is not None:
            metrics |= {f"{name}_low": pair[0], f"{name}_high": pair[1]}
    metrics |= {f"cost/{name}": finite(value) for name, value in stage.cost.items()}
    metrics |= {f"probe/{name}": finite(value) for name, value in stage.probes.items()}
    return {metric_name(name): value for name, value in metrics.items() if value is not None}


def pace_metrics(stage: StageResult) -> dict[str, float]:
    """What training a stage took, for the run of the stage: updates a second (their mean), memory, seconds; what is known."""
    paces = [pace for row in stage.curve if (pace := finite(row.get("updates_per_second"))) is not None]
    metrics = {"updates_per_second": sum(paces) / len(paces)} if paces else {}
    costs = {name: finite(stage.cost.get(name)) for name in ("peak_memory_bytes", "seconds")}
    return metrics | {name: value for name, value in costs.items() if value is not None}


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
