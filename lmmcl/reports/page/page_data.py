"""What the HTML page draws from: a sweep's results as JSON values, rounded, with lists instead of names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lmmcl.reports import formatting, plot_style
from lmmcl.reports.correlation import probe_correlations
from lmmcl.reports.page.distributions import distributions
from lmmcl.reports.page.page_front import advice, beaten_bits
from lmmcl.reports.page.score_intervals import is_share, score_interval
from lmmcl.reports.pareto import comparable, on_front
from lmmcl.reports.recommend import short_name
from lmmcl.reports.results import MEASURES, STATES, Cell, StageResult, SweepResults, TrialResult, finite, identity
from lmmcl.reports.seeds import grid_points
from lmmcl.reports.tables.moments import front_of
from lmmcl.reports.tables.table import ranked, state_of

#: Points of loss curves in the whole page; a thousand trials have coarser curves, so that the page stays below 15 MB.
CURVE_POINTS = 200_000
MOST_POINTS_A_CURVE = 200
COSTS = {
    "trained_parameters": formatting.count,
    "checkpoint_bytes": formatting.size,
    "seconds": formatting.duration,
    "peak_memory_bytes": formatting.size,
}


def page_data(results: SweepResults, encode: Callable[[dict[str, Any]], Any] = dict) -> dict[str, Any]:
    """What the scripts draw from; numbers rounded, lists instead of names where trials are many.

    Where grid points have several seeds, the page shows their means, and `single` holds what it shows of each seed. `encode` is
    applied to each trial as it is made: as text, those of a large sweep take a fifth of the memory.
    """
    points = grid_points(results)
    data = _view(points, encode) | {"facts": _facts(results), "advice": advice(points), "single": None}
    data |= {"costTable": cost_table(points), "spread": distributions(results), "file": results.file}
    return data if points is results else data | {"single": _view(results, encode)}


def _view(results: SweepResults, encode: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    trials = ranked(results.trials)
    benchmarks = list(dict.fromkeys(name for trial in trials for name in trial.benchmarks()))
    probes = list(dict.fromkeys(name for trial in trials for stage in trial.stages for name in stage.probes))
    groups: dict[object, int] = {}
    for trial in trials:
        groups.setdefault(comparable(trial), len(groups))
    places = {axis: [identity(value) for value in results.values(axis)] for axis in results.axes()}
    front, beaten = on_front(results), beaten_bits(results, trials)
    shares = _shares(trials, benchmarks)
    others = [(place, name) for place, name in enumerate(benchmarks) if not shares[place]]
    stages = sum(len(trial.stages) for trial in trials)
    points = max(8, min(MOST_POINTS_A_CURVE, CURVE_POINTS // max(1, stages)))
    return {
        "name": results.name,
        "axes": [_axis(results, axis) for axis in results.axes()],
        "colour": plot_style.colour_axis(results),
        "marker": plot_style.marker_axis(results),
        "measures": list(MEASURES),
        "labels": {name: formatting.label(name) for name in (*MEASURES, *COSTS)},
        "costs": list(COSTS),
        "benchmarks": benchmarks,
        "shares": shares,
        "dashes": plot_style.DASHES,
        "words": [plot_style.WORDS, plot_style.WORDS_AT_NIGHT],
        "probes": probes,
        "correlations": {
            link.probe: f"Spearman ρ {link.rho:+.2f}, p {formatting.p_value(link.p)}, {link.stages} stages"
            for link in (probe_correlations(results) if probes else [])
        },
        "trials": [
            encode(
                _trial(trial, places, benchmarks, probes, points, others)
                | {
                    "short": short_name(results, trial),
                    "front": trial.key in front,
                    "group": groups[comparable(trial)],
                    "beatenBy": beaten.get(trial.key),
                }
            )
            for trial in trials
        ],
    }


def _shares(trials: Sequence[TrialResult], benchmarks: Sequence[str]) -> list[bool]:
    """Whether the scores of each benchmark are shares of right answers, each of one seed; the page makes their intervals itself."""
    mixed = {
        name
        for trial in trials
        for stage in trial.stages
        for name in stage.scores
        if len(trial.seeds) > 1 or not is_share(stage, name)
    }
    return [name not in mixed for name in benchmarks]


def _axis(results: SweepResults, axis: str) -> dict[str, Any]:
    values = results.values(axis)
    markers = plot_style.markers(values)
    grounds = plot_style.colours(values), plot_style.colours(values, night=True)
    return {
        "name": axis,
        "label": formatting.label(axis),
        "values": [_axis_word(axis, value) for value in values],
        "colours": [[colours[identity(value)] for value in values] for colours in grounds],
        "symbols": [markers[identity(value)][0] for value in values],
    }


def _axis_word(axis: str, value: Any) -> str:
    return "none" if value is None else formatting.axis_value(axis, value)


def _trial(
    trial: TrialResult,
    places: Mapping[str, Sequence[str]],
    benchmarks: Sequence[str],
    probes: Sequence[str],
    points: int,
    others: Sequence[tuple[int, str]],
) -> dict[str, Any]:
    """One trial; its axes are given by the place of its value in `places`. `others` are benchmarks whose intervals the page has."""
    return {
        "name": trial.name,
        "state": trial.state,
        "reached": state_of(trial),
        "error": trial.error,
        "stopped": str(trial.stopped) if trial.stopped else None,
        "axes": [values.index(identity(trial.axes.get(axis))) for axis, values in places.items()],
        "mitigated": trial.axes.get("mitigation") is not None,
        "skills": list(trial.skills),
        "heldOut": list(trial.held_out),
        "costs": [trial.cost(name) for name in COSTS],
        "costWords": [show(trial.cost(name)) for name, show in COSTS.items()],
        "stages": [
            _stage(stage, benchmarks, probes, points) | _score_ends(trial, at, others)
            for at, stage in enumerate(trial.stages)
        ],
    }


def _stage(stage: StageResult, benchmarks: Sequence[str], probes: Sequence[str], points: int) -> dict[str, Any]:
    curve = thinned(list(stage.curve), points)  # which reads it: once
    return {
        "number": stage.number,
        "skill": stage.skill,
        "scores": [_short(stage.scores.get(name)) for name in benchmarks],
        "probes": [_short(stage.probes.get(name)) for name in probes],
        "counts": [stage.sample_counts.get(name) for name in benchmarks],
        "measures": [_short(stage.measures.get(name)) for name in MEASURES],
        "intervals": [[_short(end) for end in stage.intervals.get(name, ())] for name in MEASURES],
        "updates": [int(row["update"]) for row in curve],
        "loss": [_short(row.get("loss")) for row in curve],
        "cells": [_cell(cell, benchmarks) for cell in stage.cells],
        "inside": _inside(stage, probes) if stage.probe_curve else None,
        "along": _along(stage) if stage.score_curve else None,
    }


def _score_ends(trial: TrialResult, at: int, others: Sequence[tuple[int, str]]) -> dict[str, Any]:
    """Intervals of scores by the place of the benchmark, where the page cannot make them itself."""
    known = {place: ends for place, name in others if (ends := score_interval(trial, at, name)) is not None}
    return {"scoreIntervals": {place: [_short(end) for end in ends] for place, ends in known.items()}} if known else {}


def _inside(stage: StageResult, probes: Sequence[str]) -> dict[str, Any]:
    """What probes saw inside a stage: updates, and the values of each probe (by its place) at them."""
    rows = stage.probe_curve
    used = [place for place, name in enumerate(probes) if any(name in row for row in rows)]
    return {
        "updates": [int(row["update"]) for row in rows],
        "values": {place: [_short(row.get(probes[place])) for row in rows] for place in used},
    }


def _along(stage: StageResult) -> dict[str, Any]:
    """Learning and held-out forgetting along the stage; `front` says which moment is best under which budget."""
    rows = stage.score_curve
    return {
        "updates": [int(row["update"]) for row in rows],
        "learning": [_short(row.get("learning")) for row in rows],
        "heldOut": [_short(row.get("held_out_forgetting")) for row in rows],
        "learningEnds": _moment_ends(stage, "learning"),
        "heldOutEnds": _moment_ends(stage, "held_out_forgetting"),
        "front": [[budget, place] for budget, place in front_of(stage)],
    }


def _moment_ends(stage: StageResult, name: str) -> list[list[float | None] | None]:
    known = [stage.moment_intervals.get(int(row["update"]), {}).get(name) for row in stage.score_curve]
    return [ends and [_short(end) for end in ends] for ends in known]


def _cell(cell: Cell, benchmarks: Sequence[str]) -> dict[str, Any]:
    """One of the four cells; its place says which image and text."""
    asked = [benchmarks.index(name) for name in cell.benchmarks if name in benchmarks]
    return {name: _short(getattr(cell, name)) for name in ("change", "low", "high")} | {"benchmarks": asked}


def cost_table(results: SweepResults) -> dict[str, Any]:
    """What trials cost that differ in more than learning rate, order and seed: a row each, the cheapest to train first.

    `columns` are [heading, whether numbers]; `rows` hold [mean as text, "least … most" or None] for each of them.
    """
    axes = [axis for axis in results.varying() if axis not in ("learning_rate", "order", "seed", "seeds")]
    axes = axes or [axis for axis in ("model", "recipe") if results.values(axis) != [None]]
    groups: dict[tuple[str, ...], list[TrialResult]] = {}
    for trial in results.trials:
        if trial.cost("seconds") is not None or trial.cost("trained_parameters") is not None:
            groups.setdefault(tuple(_axis_word(axis, trial.axes.get(axis)) for axis in axes), []).append(trial)
    ordered = sorted(groups.items(), key=lambda group: _mean(group[1], "trained_parameters") or 0.0)
    rows = [
        [*([text, None] for text in names), [str(len(trials)), None], *(_cost_cell(trials, name) for name in COSTS)]
        for names, trials in ordered
    ]
    numbers = [["trials", True], *([formatting.label(name), True] for name in COSTS)]
    return {"columns": [*([formatting.label(axis), False] for axis in axes), *numbers], "rows": rows}


def _mean(trials: Sequence[TrialResult], name: str) -> float | None:
    costs = [value for trial in trials if (value := trial.cost(name)) is not None]
    return sum(costs) / len(costs) if costs else None


def _cost_cell(trials: Sequence[TrialResult], name: str) -> list[str | None]:
    costs = [value for trial in trials if (value := trial.cost(name)) is not None]
    show = COSTS[name]
    ends = f"{show(min(costs))} … {show(max(costs))}" if costs and show(min(costs)) != show(max(costs)) else None
    return [show(_mean(trials, name)), ends]


def thinned(rows: Sequence[Mapping[str, float]], points: int) -> list[Mapping[str, float]]:
    """At most `points` rows, evenly spread, with the first and the last."""
    if len(rows) <= points:
        return list(rows)
    return [rows[round(place * (len(rows) - 1) / (points - 1))] for place in range(points)]


def _facts(results: SweepResults) -> list[list[str]]:
    """Lines of the header: [what, value]."""
    states = [trial.state for trial in results.trials]
    counted = [f"{states.count(state)} {state}" for state in STATES if state in states]
    facts = [["trials", f"{len(states)} ({', '.join(counted)})" if states else "none"]]
    if results.wanted is not None:
        facts.append(["steps", f"{results.recorded or 0} of {results.wanted} recorded"])
    facts += [["search", str(search)] for search in results.searches]
    facts += [["note", note] for note in results.notes]
    if results.file:
        facts.append(["file", results.file])
    if len(results.trials) > 1:
        facts += [
            [formatting.label(axis), formatting.axis_value(axis, value)] for axis, value in results.constant().items()
        ]
    for name, value in results.provenance.items():
        text = ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, Mapping) else str(value)
        facts.append([formatting.label(str(name)), text])
    return facts


def _short(value: Any) -> float | None:
    """Few digits, but as many as it takes to be rounded to a tenth as the number itself is."""
    number = finite(value)
    if number is None:
        return None
    return formatting.short_number(number)
