"""Pairs of trials for the page's view of two side by side, with the numbers of `lmmcl compare`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lmmcl.errors import UserError
from lmmcl.ledger.index.view import SingleReads
from lmmcl.reports import formatting
from lmmcl.reports.flips import front_keys, notable_keys
from lmmcl.reports.recommend import short_name
from lmmcl.reports.report_records import Reading
from lmmcl.reports.results import SweepResults, TrialResult
from lmmcl.reports.seeds import grid_points
from lmmcl.reports.tables.compare import Comparison, Difference, Pairing, sentence
from lmmcl.search.run_context import RunContext

ALL_OF = 8
"""Grid points up to which every pair is compared; of more, the pairs of those that `notable_keys` names."""


def page_pairs(context: RunContext, results: SweepResults) -> dict[str, Any]:
    """{"trials": […], "pairs": […]}: which grid points can be set side by side, and how they compare. Empty without a pair."""
    points = grid_points(results)
    trials = points_that_matter(points, results)
    read = Reading(context.ledger, SingleReads(context.ledger))
    pairing = Pairing(context.reading(read.find), read)
    by_key = {trial.key: trial for trial in pairing.sweep.trials}
    pairs = []
    for first, second in itertools.combinations(range(len(trials)), 2):
        keys = [_first_key(trials[place]) for place in (first, second)]
        try:
            comparison = pairing.compare(by_key[keys[0]], by_key[keys[1]])
        except (
            UserError
        ):  # other stages, or no question in common: there is no such comparison, as `lmmcl compare` says
            continue
        pairs.append({"trials": [first, second], **_values(comparison)})
    front = set(front_keys(results))
    named = [
        {"name": trial.name, "short": short_name(points, trial), "key": key, "front": key in front}
        for trial in trials
        for key in [_first_key(trial)]
    ]
    return {"trials": named, "pairs": pairs} if pairs else {"trials": [], "pairs": []}


def points_that_matter(points: SweepResults, results: SweepResults) -> list[TrialResult]:
    """The grid points to compare, the one that learns most first."""
    ended = [trial for trial in points.trials if trial.state == "done" and trial.measure("learning") is not None]
    if len(ended) > ALL_OF:
        wanted = set(notable_keys(results))
        ended = [trial for trial in ended if _first_key(trial) in wanted]
    return sorted(ended, key=lambda trial: -(trial.measure("learning") or 0.0))


def _first_key(trial: TrialResult) -> str:
    return trial.seeds[0].key if trial.seeds else trial.key


def _values(comparison: Comparison) -> dict[str, Any]:
    return {
        "seeds": comparison.seeds,
        "stage": comparison.stages[0],
        "measures": [_row(row) for row in comparison.measures],
        "benchmarks": [_row(row) for row in comparison.benchmarks],
        "words": [sentence(comparison), sentence(_turned(comparison))],
    }


def _row(row: Difference) -> list[Any]:
    """Name, both values, second − first with its interval, p-values as words, whether the difference is significant."""
    numbers = (row.first, row.second, row.value, row.low, row.high)
    words = (formatting.p_value(row.p), formatting.p_value(row.p_holm))
    return [
        row.name,
        formatting.label(row.name),
        *(formatting.short_number(number) for number in numbers),
        *words,
        row.significant,
    ]


def _turned(comparison: Comparison) -> Comparison:
    """First − second."""
    return replace(
        comparison,
        first=comparison.second,
        second=comparison.first,
        measures=_turned_rows(comparison.measures),
        benchmarks=_turned_rows(comparison.benchmarks),
    )


def _turned_rows(rows: Sequence[Difference]) -> list[Difference]:
    return [
        replace(row, first=row.second, second=row.first, value=-row.value, low=-row.high, high=-row.low) for row in rows
    ]
