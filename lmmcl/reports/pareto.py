"""The trials that no other trial beats: as much learnt with as little of the old lost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lmmcl.reports.results import SweepResults, TrialResult

Point = tuple[float, float]


def pareto_front(points: Mapping[str, Point]) -> list[str]:
    """Names of the points that no other point dominates, both coordinates maximised, from left to right.

    A point dominates another when it is at least as good in both and better in one, so equal points stay together.
    """
    front: list[str] = []
    best = float("-inf")
    kept: Point | None = None
    for name, point in sorted(points.items(), key=lambda item: (-item[1][0], -item[1][1])):
        if point[1] > best or point == kept:
            front.append(name)
            best, kept = point[1], point
    return front[::-1]


def beaten_by(results: SweepResults, places: Mapping[str, int]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Of each comparable trial which others dominate it, at their `places` by key: it is on the front of any selection that shows
    none of them."""
    for group in _comparable_groups(results):
        points = np.array([_point(trial) for trial in group])
        columns = np.array([places[trial.key] for trial in group])
        for trial, own in zip(group, points, strict=True):
            beats = np.zeros(len(places), dtype=bool)
            beats[columns] = (points >= own).all(axis=1) & (points != own).any(axis=1)
            yield trial.key, beats


def fronts(results: SweepResults) -> list[list[TrialResult]]:
    """The Pareto front on (learning, held-out forgetting) of each set of comparable trials, from left to right.

    Only finished trials count, since learning is a mean over all skills, and only those that have learned. Trials are comparable
    when they start from one model and are asked the same questions, whatever the order of the skills.
    """
    return [_front_of(trials) for trials in _comparable_groups(results)]


def has_learned(trial: TrialResult) -> bool:
    """Whether a trial learned anything: its learning is above 0, and so is the whole interval where there is one."""
    learning, interval = trial.measure("learning"), trial.interval("learning")
    return learning is not None and min(learning, interval[0] if interval else learning) > 0


def _comparable_groups(results: SweepResults) -> list[list[TrialResult]]:
    """Finished trials that have learned and whose place is known, each set of comparable ones together.

    Who learns nothing forgets nothing: it would be on every front.
    """
    groups: dict[tuple[object, ...], list[TrialResult]] = defaultdict(list)
    for trial in results.trials:
        if trial.state == "done" and not trial.bound and place(trial) is not None and has_learned(trial):
            groups[comparable(trial)].append(trial)
    return list(groups.values())


def comparable(trial: TrialResult) -> tuple[object, ...]:
    """What two trials must share for one to be better than the other."""
    return (trial.axes.get("model"), tuple(sorted(trial.skills)), tuple(sorted(trial.held_out)))


def on_front(results: SweepResults) -> set[str]:
    """Keys of the trials on any Pareto front of the sweep."""
    return {trial.key for front in fronts(results) for trial in front}


def place(trial: TrialResult) -> Point | None:
    """(learning, held-out forgetting) at the last stage, or None when one of them is not known."""
    learning, held_out = trial.measure("learning"), trial.measure("held_out_forgetting")
    return None if learning is None or held_out is None else (learning, held_out)


def _point(trial: TrialResult) -> Point:
    """The place of a trial that has one."""
    point = place(trial)
    assert point is not None, f"{trial.name} has no place"
    return point


def _front_of(trials: Sequence[TrialResult]) -> list[TrialResult]:
    by_key = {trial.key: trial for trial in trials}
    points = {key: _point(trial) for key, trial in by_key.items()}
    return [by_key[key] for key in pareto_front(points)]
