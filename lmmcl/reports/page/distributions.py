"""Seeds and orders as distributions for the page: the trials of each grid point beside their mean with its interval."""

from __future__ import annotations

from typing import Any

from lmmcl.reports.recommend import short_name
from lmmcl.reports.results import RESAMPLED, SweepResults
from lmmcl.reports.seeds import grid_points, has_seeds
from lmmcl.reports.seeds import spread as deviation
from lmmcl.reports.tables.order_spread import order_spreads


def distributions(results: SweepResults) -> list[dict[str, Any]]:
    """A group for each grid point with several seeds or orders, and each measure: its values by name, mean, ends, deviation."""
    return [*_over_seeds(results), *_over_orders(results)]


def _over_seeds(results: SweepResults) -> list[dict[str, Any]]:
    if not has_seeds(results):
        return []
    points, groups = grid_points(results), []
    for trial in points.trials:
        for measure in RESAMPLED:
            mean, ends, spread = trial.measure(measure), trial.interval(measure), deviation(trial, measure)
            if mean is None or ends is None or spread is None:
                continue
            last = [(run.axes.get("seed"), run.stages[len(trial.stages) - 1]) for run in trial.seeds]
            values = [[f"seed {seed}", stage.measures[measure]] for seed, stage in last if measure in stage.measures]
            numbers = {"mean": mean, "low": ends[0], "high": ends[1], "deviation": spread}
            groups.append(
                {"over": "seeds", "measure": measure, "point": short_name(points, trial), "values": values} | numbers
            )
    return groups


def _over_orders(results: SweepResults) -> list[dict[str, Any]]:
    return [
        {
            "over": "orders",
            "measure": spread.measure,
            "point": spread.point,
            "values": [[f"order {order}", value] for order, value in spread.by_order.items()],
            "mean": spread.mean.value,
            "low": spread.mean.low,
            "high": spread.mean.high,
            "deviation": spread.sensitivity,
        }
        for spread in order_spreads(results)
    ]
