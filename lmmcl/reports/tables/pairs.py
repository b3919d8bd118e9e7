"""Two mitigations together against each alone: what a pair adds to the better of the two, and whether they interact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from rich.table import Table

from lmmcl.reports import formatting
from lmmcl.reports.paired import ALPHA, Estimate, estimate
from lmmcl.reports.results import SweepResults, TrialResult, identity
from lmmcl.reports.tables.small_table import SmallTable

BETWEEN = " + "
"""Between the members of a combination, in its label."""
TITLE = "Pairs of mitigations"
MEASURES = ("overall", "held_out_forgetting")
HEADS = ("pair", "measure", "together", "better single", "pair − better single", "interaction")
NOTE = (
    "Means over seeds, in points. Interaction: pair − a − b + none; above 0 the two help each other. Intervals are over questions "
    "and seeds, paired, and corrected over all pairs of the table (Holm); * marks those without 0."
)
Seeds = Mapping[str, TrialResult]


@dataclass(frozen=True)
class Pair:
    """One pair on one measure, over the seeds that all four have: the pair, each member alone, and no mitigation."""

    names: tuple[str, str]
    point: str
    measure: str
    value: float
    better: str
    better_value: float
    gain: Estimate
    interaction: Estimate
    seeds: int

    def to_dict(self) -> dict[str, Any]:
        """As reports for other programs hold it."""
        return {**asdict(self), "names": list(self.names)}


def pairs(results: SweepResults) -> list[Pair]:
    """All pairs whose members, and a trial without mitigation, are finished at the same grid point.

    Intervals are corrected over all pairs, for each measure apart.
    """
    measured = [
        contrast for quartet in _quartets(results) for measure in MEASURES if (contrast := _pair(*quartet, measure))
    ]
    for measure in MEASURES:
        for name in ("gain", "interaction"):
            own = [place for place, (pair, _) in enumerate(measured) if pair.measure == measure]
            ranked = sorted(own, key=lambda place: getattr(measured[place][0], name).p)
            for rank, place in enumerate(ranked):
                pair, draws = measured[place]
                values, bootstrap = draws[name]
                corrected: dict[str, Any] = {name: estimate(values, bootstrap, 1 - ALPHA / (len(ranked) - rank))}
                measured[place] = (replace(pair, **corrected), draws)
    return [pair for pair, _ in measured]


def _quartets(results: SweepResults) -> Iterator[tuple[tuple[str, str], str, Seeds, Seeds, Seeds, Seeds]]:
    """(members, grid point, pair, first alone, second alone, none), each finished trials by seed."""
    points: dict[tuple[str, ...], dict[str | None, dict[str, TrialResult]]] = {}
    for trial in results.trials:
        if trial.state == "done":
            rest = tuple(
                f"{axis} {identity(value)}" for axis, value in trial.axes.items() if axis not in ("mitigation", "seed")
            )
            by_seed = points.setdefault(rest, {}).setdefault(trial.axes.get("mitigation"), {})
            by_seed[identity(trial.axes.get("seed"))] = trial
    for rest, by_label in points.items():
        for label, trials in by_label.items():
            names = (label or "").split(BETWEEN)
            if len(names) == 2 and {names[0], names[1], None} <= set(by_label):
                first, second = names
                yield (first, second), " · ".join(rest), trials, by_label[first], by_label[second], by_label[None]


def _pair(
    names: tuple[str, str], point: str, both: Seeds, first: Seeds, second: Seeds, none: Seeds, measure: str
) -> tuple[Pair, dict[str, tuple[list[float], list[Any]]]] | None:
    seeds = [seed for seed in both if all(seed in trials for trials in (first, second, none))]
    quartets = [[trials[seed] for trials in (both, first, second, none)] for seed in seeds]
    if not seeds or any(measure not in trial.draws for quartet in quartets for trial in quartet):
        return None
    values = np.array([[_value(trial, measure) for trial in quartet] for quartet in quartets])
    draws = [[trial.draws[measure] for trial in quartet] for quartet in quartets]
    means = values.mean(axis=0)
    better = 1 if means[1] >= means[2] else 2
    kinds = {"gain": np.array([1.0, 0, 0, 0]), "interaction": np.array([1.0, -1, -1, 1])}
    kinds["gain"][better] = -1
    contrasts = {
        name: ((values @ signs).tolist(), [np.tensordot(signs, np.stack(quartet), axes=1) for quartet in draws])
        for name, signs in kinds.items()
    }
    gain, interaction = (estimate(*contrasts[name]) for name in kinds)
    pair = Pair(names, point, measure, means[0], names[better - 1], means[better], gain, interaction, len(seeds))
    return pair, contrasts


def _value(trial: TrialResult, measure: str) -> float:
    value = trial.measure(measure)
    assert value is not None, "a measure with draws has a value"
    return value


def _rows(measured: Sequence[Pair]) -> list[list[str]]:
    ordered = sorted(measured, key=lambda pair: (MEASURES.index(pair.measure), -pair.gain.value))
    return [
        [
            BETWEEN.join(pair.names),
            formatting.label(pair.measure),
            formatting.points(pair.value),
            f"{pair.better} {formatting.points(pair.better_value)}",
            _shown(pair.gain),
            _shown(pair.interaction),
        ]
        for pair in ordered
    ]


def _shown(estimate: Estimate) -> str:
    star = " *" if estimate.low > 0 or estimate.high < 0 else ""
    return formatting.points_range(estimate.value, (estimate.low, estimate.high)) + star


def pair_rows(results: SweepResults) -> Iterator[dict[str, Any]]:
    """A row for each pair and measure, with both ends of the corrected intervals."""
    for pair in pairs(results):
        yield {
            "first": pair.names[0],
            "second": pair.names[1],
            "point": pair.point,
            "measure": pair.measure,
            "value": pair.value,
            "better": pair.better,
            "better_value": pair.better_value,
            **_ends("gain", pair.gain),
            **_ends("interaction", pair.interaction),
            "seeds": pair.seeds,
        }


def _ends(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def pairs_table(results: SweepResults) -> Table | None:
    """For the terminal; None where no pair can be compared with its members."""
    return _table(results).terminal()


def pairs_markdown(results: SweepResults) -> str:
    """The same as Markdown; empty where no pair can be compared with its members."""
    return _table(results).markdown()


def _table(results: SweepResults) -> SmallTable:
    return SmallTable(TITLE, HEADS, _rows(pairs(results)), NOTE, texts=(0, 1, 3))
