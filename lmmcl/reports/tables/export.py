"""A sweep for other programs: JSON with all stages, and flat rows (CSV, Parquet), one for each trial."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmmcl.atomic_files import replacing, write_text
from lmmcl.errors import UserError, unknown
from lmmcl.reports.pareto import on_front
from lmmcl.reports.recommend import BUDGET
from lmmcl.reports.results import AXES, MEASURES, StageResult, SweepResults, TrialResult, finite, finite_pair
from lmmcl.reports.tables.bound_table import between_bounds
from lmmcl.reports.tables.moments import best_moment
from lmmcl.reports.tables.order_spread import order_spreads
from lmmcl.reports.tables.pairs import pairs
from lmmcl.reports.tables.recommend_json import recommendation_dict
from lmmcl.reports.tables.table import markdown_table
from lmmcl.reports.tables.wording_spread import spreads
from lmmcl.terminal import escape_controls

FORMULA = ("=", "+", "-", "@", "\t")
"""What a cell begins with that a spreadsheet computes."""
FORMATS = ("json", "csv", "md", "parquet")
_AS_THEY_ARE = frozenset({str, bool, int})
COSTS = ("trained_parameters", "trained_bytes", "checkpoint_bytes", "seconds", "peak_memory_bytes")


def as_dict(results: SweepResults, budget: float = BUDGET, *, curves: bool = False) -> dict[str, Any]:
    """The sweep as JSON values without NaN; scores are points (0 to 100), measures signed percentage points.

    What is not known is null: the axes, the four measures and `seconds` are always there. `recommendation` is for `budget`
    points of held-out forgetting (see `lmmcl.reports.tables.recommend_json`). `best_moment` is that of a
    stage under the same budget. `curves=True` adds the loss curves.
    """
    front = on_front(results)
    trials = [_trial(trial, trial.key in front, curves, budget) for trial in results.trials]
    return {**dict(_about(results, budget)), "trials": trials}


def _about(results: SweepResults, budget: float) -> Iterator[tuple[str, Any]]:
    yield "sweep", results.name
    yield "file", results.file
    yield "wanted", results.wanted
    yield "recorded", results.recorded
    yield "provenance", _plain(results.provenance)
    yield "notes", list(results.notes)
    yield "searches", [_plain(entry.to_dict()) for entry in results.searches]
    yield "recommendation", recommendation_dict(results, budget)
    yield "orders", [_plain(entry.to_dict()) for entry in order_spreads(results)]
    yield "bounds", [_plain(entry.to_dict()) for entry in between_bounds(results)]
    yield "pairs", [_plain(pair.to_dict()) for pair in pairs(results)]


def as_json(results: SweepResults, budget: float = BUDGET, *, curves: bool = False) -> str:
    """The text of `as_dict`, refused by no JSON reader: a line for each entry and each trial."""
    return "".join(json_parts(results, budget, curves=curves))


def json_parts(results: SweepResults, budget: float = BUDGET, *, curves: bool = False) -> Iterator[str]:
    """`as_json` in parts that are made one by one: the whole of a large sweep is many times as large as each of them."""
    front = on_front(results)
    encode = json.JSONEncoder(allow_nan=False, ensure_ascii=False).encode
    yield "{\n"
    for name, value in _about(results, budget):
        yield f"  {encode(name)}: {encode(value)},\n"
    yield '  "trials": ['
    for place, trial in enumerate(results.trials):
        yield f"{',' if place else ''}\n    {encode(_trial(trial, trial.key in front, curves, budget))}"
    yield "\n  ]\n}\n" if results.trials else "]\n}\n"


def flat_rows(results: SweepResults) -> list[dict[str, Any]]:
    """One flat row a trial: axes, measures with `_low` and `_high`, costs, `score/…` and `probe/…` at the last stage.

    All rows have the same columns; an axis that holds a list or a mapping becomes JSON text.
    """
    front = on_front(results)
    measures = _all(results, "measures")
    benchmarks = _all(results, "scores")
    return [_flat(results, trial, trial.key in front, measures, benchmarks) for trial in results.trials]


def as_text(results: SweepResults, kind: str, budget: float = BUDGET) -> str:
    """The sweep as `json`, `csv` or `md`."""
    if kind == "csv":
        return as_csv(results)
    return as_json(results, budget) if kind == "json" else markdown_table(results, budget)


def as_csv(results: SweepResults) -> str:
    """`flat_rows` as CSV; what is not known is empty, and no cell is a formula to a spreadsheet."""
    rows = [{name: _cell(value) for name, value in row.items()} for row in flat_rows(results)]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else ["name"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    """A text that a spreadsheet would compute gets an apostrophe before it, as spreadsheets themselves mark texts."""
    if not isinstance(value, str):
        return value
    text = escape_controls(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def write(results: SweepResults, path: Path, kind: str, budget: float = BUDGET) -> None:
    """Write the sweep to `path` in one of FORMATS; raises UserError for another one."""
    if kind not in FORMATS:
        raise UserError(unknown("format", kind, FORMATS))
    if kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        with replacing(path) as partial:
            pq.write_table(pa.Table.from_pylist(flat_rows(results)), partial)
    elif kind == "json":
        write_text(path, json_parts(results, budget))
    else:
        write_text(path, as_text(results, kind, budget))


def _trial(trial: TrialResult, is_on_front: bool, curves: bool, budget: float) -> dict[str, Any]:
    return {
        "key": trial.key,
        "name": trial.name,
        "state": trial.state,
        "error": trial.error,
        "stopped": _plain(trial.stopped.to_dict()) if trial.stopped else None,
        **{axis: _plain(trial.axes.get(axis)) for axis in dict.fromkeys([*AXES, *trial.axes])},
        "skills": list(trial.skills),
        "bound": trial.bound or None,
        "held_out": list(trial.held_out),
        **(_measures(trial.last) if trial.last else dict.fromkeys(MEASURES)),
        "intervals": _intervals(trial.last) if trial.last else {},
        "on_pareto_front": is_on_front,
        **{name: trial.cost(name) for name in COSTS},
        "wordings": [_plain(spread.to_dict()) for spread in spreads(trial)],
        "stages": [_stage(stage, curves, budget) for stage in trial.stages],
    }


def _stage(stage: StageResult, curves: bool, budget: float) -> dict[str, Any]:
    best = best_moment(stage, budget)
    curve = {"curve": [_plain(row) for row in stage.curve]} if curves else {}
    return {
        "number": stage.number,
        "skill": stage.skill,
        "checkpoint_key": stage.checkpoint_key,
        "scores": _plain(stage.scores),
        "sample_counts": _plain(stage.sample_counts),
        **_measures(stage),
        "intervals": _intervals(stage),
        "cost": _plain(stage.cost),
        "probes": _plain(stage.probes),
        "probe_curve": [_plain(row) for row in stage.probe_curve],
        "score_curve": [_plain(row) for row in stage.score_curve],
        "moment_intervals": _plain(stage.moment_intervals),
        "wordings": _plain(stage.wordings),
        "best_moment": _plain(best.to_dict()) if best else None,
        "cells": [_plain(dict(vars(cell))) for cell in stage.cells],
        **curve,
    }


def _measures(stage: StageResult) -> dict[str, float | None]:
    return {name: finite(stage.measures.get(name)) for name in dict.fromkeys([*MEASURES, *stage.measures])}


def _intervals(stage: StageResult) -> dict[str, list[float]]:
    return {
        name: list(pair) for name, interval in stage.intervals.items() if (pair := finite_pair(interval)) is not None
    }


def _flat(
    results: SweepResults, trial: TrialResult, is_on_front: bool, measures: list[str], benchmarks: list[str]
) -> dict[str, Any]:
    row: dict[str, Any] = {"key": trial.key, "name": trial.name, "state": trial.state}
    for axis in results.axes():
        value = _plain(trial.axes.get(axis))
        row[axis] = json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else value
    for name in measures:
        row[name] = trial.measure(name)
        low, high = trial.interval(name) or (None, None)
        row |= {f"{name}_low": low, f"{name}_high": high}
    row |= {name: trial.cost(name) for name in COSTS}
    scores, probes = (trial.last.scores, trial.last.probes) if trial.last else ({}, {})
    row |= {f"score/{name}": finite(scores.get(name)) for name in benchmarks}
    row |= {f"probe/{name}": finite(probes.get(name)) for name in _all(results, "probes")}
    row |= {"stages": len(trial.stages), "on_pareto_front": is_on_front, "error": trial.error}
    return row | {"stopped": str(trial.stopped) if trial.stopped else None}


def _all(results: SweepResults, what: str) -> list[str]:
    """Names used at any stage, in the order met, the four measures first."""
    first = MEASURES if what == "measures" else ()
    names = (name for trial in results.trials for stage in trial.stages for name in getattr(stage, what))
    return list(dict.fromkeys([*first, *names]))


def _plain(value: Any) -> Any:
    """The value with JSON types only: no NaN, no tuple, no foreign number, no object."""
    kind = type(value)
    if kind is float:
        return value if math.isfinite(value) else None
    if value is None or kind in _AS_THEY_ARE or isinstance(value, str | bool | int):
        return value
    if isinstance(value, dict) or hasattr(value, "items"):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return finite(value) if hasattr(value, "__float__") else str(value)
