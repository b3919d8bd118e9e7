"""How much the order of the skills matters: means over orders with intervals, and order sensitivity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.table import Table

from lmmcl.config.trial_names import SEPARATOR, name_part
from lmmcl.reports import formatting
from lmmcl.reports.paired import Estimate, estimate
from lmmcl.reports.results import SweepResults, TrialResult, identity
from lmmcl.reports.seeds import averaged, has_seeds
from lmmcl.reports.tables.small_table import SmallTable

TITLE = "Over orders"
MEASURES = ("learning", "overall", "held_out_forgetting")
HEADS = ("grid point", "orders", "measure", "mean over orders", "order sensitivity", "least … most")
NOTE = (
    "Points after the last stage, seeds averaged first. The interval is over orders and questions (t distribution). Order "
    "sensitivity is the standard deviation over orders."
)


@dataclass(frozen=True)
class OrderSpread:
    """One measure of one grid point over its orders: `sensitivity` is the standard deviation of the values by order."""

    point: str
    measure: str
    mean: Estimate
    sensitivity: float
    by_order: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """As reports for other programs hold it."""
        return asdict(self)


def order_spreads(results: SweepResults) -> list[OrderSpread]:
    """Of each grid point that is finished in several orders of the same skills, the measures over these orders."""
    results = averaged(results) if has_seeds(results) else results
    groups: dict[tuple[object, ...], dict[str, TrialResult]] = {}
    for trial in results.trials:
        if trial.state == "done" and not trial.bound:
            rest = [
                (axis, identity(value)) for axis, value in trial.axes.items() if axis not in ("order", "seed", "seeds")
            ]
            point = (tuple(rest), tuple(sorted(trial.skills)))
            groups.setdefault(point, {})[str(trial.axes.get("order"))] = trial
    spreads = []
    for trials in groups.values():
        if len(trials) > 1:
            spreads += [spread for measure in MEASURES if (spread := _spread(results, trials, measure))]
    return spreads


def _spread(results: SweepResults, trials: dict[str, TrialResult], measure: str) -> OrderSpread | None:
    values = {order: value for order, trial in trials.items() if (value := trial.measure(measure)) is not None}
    draws = [trial.draws[measure] for trial in trials.values() if measure in trial.draws]
    if len(values) < len(trials) or len(draws) < len(trials):
        return None
    listed = list(values.values())
    sensitivity = float(np.std(listed, ddof=1))
    return OrderSpread(
        _name(results, next(iter(trials.values()))), measure, estimate(listed, draws), sensitivity, values
    )


def _name(results: SweepResults, trial: TrialResult) -> str:
    """What tells the grid point from others: its axes that vary, the order and the seed aside."""
    axes = [axis for axis in results.varying() if axis not in ("order", "seed", "seeds")]
    parts = [name_part(axis, trial.axes.get(axis)) for axis in axes]
    return SEPARATOR.join(part for part in parts if part is not None) or str(trial.axes.get("recipe"))


def _rows(spreads: Sequence[OrderSpread]) -> list[list[str]]:
    return [
        [
            spread.point,
            str(len(spread.by_order)),
            formatting.label(spread.measure),
            formatting.points_range(spread.mean.value, (spread.mean.low, spread.mean.high)),
            formatting.spread(spread.sensitivity),
            " … ".join(
                f"{formatting.points(value)} ({order})"
                for order, value in (
                    min(spread.by_order.items(), key=lambda pair: pair[1]),
                    max(spread.by_order.items(), key=lambda pair: pair[1]),
                )
            ),
        ]
        for spread in spreads
    ]


def order_rows(results: SweepResults) -> Iterator[dict[str, Any]]:
    """A row for each grid point and measure over its orders."""
    for spread in order_spreads(results):
        yield {
            "point": spread.point,
            "measure": spread.measure,
            "orders": len(spread.by_order),
            "mean": spread.mean.value,
            "low": spread.mean.low,
            "high": spread.mean.high,
            "sensitivity": spread.sensitivity,
        }


def orders_table(results: SweepResults) -> Table | None:
    """For the terminal; None where no grid point has several orders."""
    return _table(results).terminal()


def orders_markdown(results: SweepResults) -> str:
    """The same as Markdown; empty where no grid point has several orders."""
    return _table(results).markdown()


def _table(results: SweepResults) -> SmallTable:
    return SmallTable(TITLE, HEADS, _rows(order_spreads(results)), NOTE, texts=(0, 2, 5))
