"""What the page draws Pareto fronts and advice from: who beats whom, and every choice of each front in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmmcl.reports import formatting
from lmmcl.reports.pareto import beaten_by
from lmmcl.reports.recommend import BUDGET, caution, choice_lines, recommend, risk_line, short_name
from lmmcl.reports.results import SweepResults, TrialResult
from lmmcl.reports.tables.table import ranked


def beaten_bits(results: SweepResults, trials: Sequence[TrialResult]) -> dict[str, str]:
    """For each finished trial, the places of those that beat it as bits: hexadecimal, the lowest four places first."""
    places = {trial.key: place for place, trial in enumerate(trials)}
    return {key: _hexadecimal(beats) for key, beats in beaten_by(results, places)}


def _hexadecimal(bits: NDArray[np.bool_]) -> str:
    """Four bits a digit, the lowest first, without the zeros at the end (`0` where all are)."""
    digits = np.packbits(bits, bitorder="little").tobytes().hex()
    return ("".join(map("".join, zip(digits[1::2], digits[::2], strict=True)))).rstrip("0") or "0"


def advice(results: SweepResults) -> dict[str, Any]:
    """The choices of each front in words; the page picks among them by the reader's budget, as `Recommendation.under` does."""
    places = {trial.key: place for place, trial in enumerate(ranked(results.trials))}
    groups = []
    for group in recommend(results):
        least = group.least_lost
        choices = [
            {
                "trial": places[choice.trial.key],
                "key": choice.trial.seeds[0].key if choice.trial.seeds else choice.trial.key,
                "name": short_name(results, choice.trial),
                "leastBudget": choice.least_budget,
                "sureBudget": choice.sure_budget,
                "risk": None if choice.sure_budget is None else risk_line(choice.sure_budget),
                "lines": choice_lines(results, choice),
                "ties": [places[tie.trial.key] for tie in choice.ties],
            }
            for choice in group.choices
        ]
        lost = formatting.points_range(least.measure("held_out_forgetting"), least.interval("held_out_forgetting"))
        groups.append({"model": group.model, "choices": choices, "least": f"{short_name(results, least)}: {lost}"})
    return {"budget": BUDGET, "groups": groups, "caution": caution(results)}
