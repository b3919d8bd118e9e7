"""Seeds averaged: one row for each grid point, with an interval that covers other questions and of other seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lmmcl.reports import formatting
from lmmcl.reports.paired import from_variances
from lmmcl.reports.results import Cell, Interval, StageResult, SweepResults, TrialResult, finite, finite_pair, identity

TO_DEVIATION = 2 * 1.959964
"""Width of a 95 % interval in standard deviations."""


def has_seeds(results: SweepResults) -> bool:
    """Whether some grid point of the sweep was trained with more than one seed."""
    return any(len(group) > 1 for group in by_point(results.trials))


def by_point(trials: Iterable[TrialResult]) -> list[list[TrialResult]]:
    """Trials that differ in nothing but the seed, together, in the order met."""
    groups: dict[str, list[TrialResult]] = {}
    for trial in trials:
        axes = sorted((name, identity(value)) for name, value in trial.axes.items() if name != "seed")
        groups.setdefault(identity(axes), []).append(trial)
    return list(groups.values())


def averaged(results: SweepResults) -> SweepResults:
    """The sweep with one row a grid point; the axis `seed` gives way to `seeds`, the number that is averaged."""
    return replace(results, trials=[mean_trial(group) for group in by_point(results.trials)])


def grid_points(results: SweepResults) -> SweepResults:
    """The sweep as people compare it: seeds averaged where there are several, else as it is."""
    if "points" not in results.memo:
        results.memo["points"] = averaged(results) if has_seeds(results) else results
    points: SweepResults = results.memo["points"]
    return points


def mean_trial(trials: Sequence[TrialResult]) -> TrialResult:
    """The mean over the ended seeds of a grid point, done and stopped alike; where none has ended, the seed that came furthest.

    Where a budget or a scheduler stopped a seed, the point is stopped as well: its mean is over all ended seeds up to the stage
    that each of them reached, with the reason of the one stopped first. Without that the seeds that survive would stand for
    the point alone. Seeds of walks of unequal length have no draws together: these are of different stages. The axis
    `seeds` says how many are averaged; `error` tells of those that failed, each in a line of its reason.
    """
    ended = [trial for trial in trials if trial.state in ("done", "stopped")]
    used = ended or [max(trials, key=lambda trial: len(trial.stages))]
    failed = [trial for trial in trials if trial.state == "failed"]
    first = min((run for run in used if run.state == "stopped"), key=lambda run: len(run.stages), default=used[0])
    axes = {name: value for name, value in first.axes.items() if name != "seed"} | {"seeds": len(ended)}
    alike = len({len(trial.stages) for trial in used}) == 1
    return TrialResult(
        key=first.key if len(trials) == 1 else _key(trials),
        name=first.name.removesuffix(f" · s{first.axes.get('seed')}"),
        axes=axes,
        skills=first.skills,
        held_out=first.held_out,
        stages=[mean_stage(stages) for stages in zip(*(trial.stages for trial in used), strict=False)],
        state=first.state,
        error="; ".join(f"seed {run.axes.get('seed')}: {formatting.first_line(run.error or '')}" for run in failed)
        or None,
        draws=_mean_draws(used) if alike else {},
        seeds=tuple(used) if len(trials) > 1 else (),
        stopped=first.stopped,
        bound=first.bound,
    )


def mean_stage(stages: Sequence[StageResult]) -> StageResult:
    """The mean of one stage over seeds; what a seed lacks is left out. The curve is that of the first seed."""
    if len(stages) == 1:
        return stages[0]
    return replace(
        stages[0],
        checkpoint_key=_key(stages, lambda stage: stage.checkpoint_key),
        trained_key=_key(stages, lambda stage: stage.trained_key or "") if stages[0].trained_key else None,
        scores=_means(stage.scores for stage in stages),
        measures=_means(stage.measures for stage in stages),
        intervals=_intervals([(stage.measures, stage.intervals) for stage in stages]),
        cost=_means(stage.cost for stage in stages),
        probes=_means(stage.probes for stage in stages),
        probe_curve=_mean_curve([stage.probe_curve for stage in stages]),
        wordings={name: _means(run.wordings[name] for run in stages) for name in _shared(s.wordings for s in stages)},
        score_curve=_mean_curve([stage.score_curve for stage in stages]),
        score_intervals={},  # those of a mean over seeds are made of the seeds' own
        moment_intervals=_moment_intervals(stages),
        cells=[_mean_cell(cells) for cells in zip(*(stage.cells for stage in stages), strict=False)],
    )


def spread(trial: TrialResult, name: str) -> float | None:
    """The standard deviation of a measure over the seeds of an averaged trial, at its last stage; None for fewer than two."""
    last = [run.stages[len(trial.stages) - 1] for run in trial.seeds if trial.stages]
    values = [value for stage in last if (value := finite(stage.measures.get(name))) is not None]
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _intervals(seeds: Sequence[tuple[Mapping[str, float], Mapping[str, Interval]]]) -> dict[str, Interval]:
    """Of the mean over seeds of each measure, from its value and interval of each seed."""
    intervals = {}
    for name in _shared(ends for _, ends in seeds):
        pairs = [pair for _, ends in seeds if (pair := finite_pair(ends[name])) is not None]
        values = [value for measures, _ in seeds if (value := finite(measures.get(name))) is not None]
        if len(pairs) == len(values) == len(seeds):
            # all seeds answer the same questions: their mean is about as uncertain in that respect as each of them
            deviation = float(np.mean([(high - low) / TO_DEVIATION for low, high in pairs]))
            interval = from_variances(values, deviation**2)
            intervals[name] = (interval.low, interval.high)
    return intervals


def _moment_intervals(stages: Sequence[StageResult]) -> dict[int, dict[str, Interval]]:
    """By update, where all seeds have them."""
    values = [{int(row["update"]): row for row in stage.score_curve} for stage in stages]
    known = [stage.moment_intervals for stage in stages]
    return {
        update: _intervals([(rows[update], ends[update]) for rows, ends in zip(values, known, strict=True)])
        for update in known[0]
        if all(update in ends for ends in known)
    }


def _mean_curve(curves: Sequence[Sequence[Mapping[str, float]]]) -> list[dict[str, float]]:
    """Values by update, where all seeds have them."""
    rows = [{row["update"]: row for row in curve} for curve in curves]
    return [_means(one[update] for one in rows) for update in rows[0] if all(update in one for one in rows)]


def _mean_cell(cells: Sequence[Cell]) -> Cell:
    """One cell over seeds, with an interval that covers other questions and of other seeds; all are of one sweep's benchmarks."""
    changes = [cell.change for cell in cells if cell.change is not None]
    widths = [cell.high - cell.low for cell in cells if cell.low is not None and cell.high is not None]
    if len(changes) < len(cells) or len(widths) < len(cells):
        return cells[0]  # empty for one seed is empty for all
    interval = from_variances(changes, float(np.mean(widths) / TO_DEVIATION) ** 2)
    return replace(cells[0], change=sum(changes) / len(changes), low=interval.low, high=interval.high)


def _means(parts: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    mappings = list(parts)
    means = {}
    for name in _shared(mappings):
        values = [value for mapping in mappings if (value := finite(mapping[name])) is not None]
        if len(values) == len(mappings):
            means[name] = sum(values) / len(values)
    return means


def _shared(parts: Iterable[Mapping[str, Any]]) -> list[str]:
    mappings = list(parts)
    return [name for name in mappings[0] if all(name in mapping for mapping in mappings)]


def _mean_draws(trials: Sequence[TrialResult]) -> dict[str, Any]:
    return {name: np.mean([trial.draws[name] for trial in trials], axis=0) for name in _shared(t.draws for t in trials)}


def _key(things: Sequence[Any], key: Callable[[Any], str] = lambda thing: thing.key) -> str:
    return hashlib.sha256(" ".join(map(key, things)).encode()).hexdigest()[:16]
