"""The recommendation for other programs: the front, what is within noise, the choice under a budget, and the words."""

from __future__ import annotations

from typing import Any

from lmmcl.reports.paired import Estimate
from lmmcl.reports.recommend import (
    BUDGET,
    TESTED,
    Candidate,
    Recommendation,
    caution,
    recommend,
    recommendation,
    short_name,
)
from lmmcl.reports.results import SweepResults, TrialResult, finite
from lmmcl.reports.seeds import averaged, has_seeds


def recommendation_dict(results: SweepResults, budget: float = BUDGET) -> dict[str, Any]:
    """The advice as JSON values; numbers are percentage points. Seeds are averaged first, as in the table and the page.

    `models` has an entry for each set of comparable trials with a finished one: `front` from the least learnt to the most,
    `take` (the entry of the front that learns most within the budget; null when every trial loses more), `least_lost`.
    A trial is given by its short `name` and the keys of its `trials`, one a seed. `within_noise` of a front's trial are the
    trials that differ significantly from it in no measure (paired over questions and seeds; p-values before Holm's correction),
    each with its difference: that trial − the one of the front.
    """
    points = averaged(results) if has_seeds(results) else results
    advices = recommend(points)
    models = [_advice(points, advice, budget) for advice in advices]
    return {
        "budget": budget,
        "models": models,
        "words": recommendation(points, budget, advices),
        "caution": caution(points) if models else None,
    }


def _advice(points: SweepResults, advice: Recommendation, budget: float) -> dict[str, Any]:
    take = advice.under(budget)
    return {
        "model": advice.model,
        "finished": advice.finished,
        "take": _point(points, take.trial) if take else None,
        "least_lost": _point(points, advice.least_lost),
        "front": [_choice(points, choice) for choice in advice.choices],
    }


def _choice(points: SweepResults, choice: Candidate) -> dict[str, Any]:
    ties = [
        {**_named(points, tie.trial), "differences": {name: _numbers(tie.differences[name]) for name in TESTED}}
        for tie in choice.ties
    ]
    return {**_point(points, choice.trial), "compared_with": choice.rivals, "within_noise": ties}


def _numbers(difference: Estimate) -> dict[str, float | None]:
    return {name: finite(getattr(difference, name)) for name in ("value", "low", "high", "p")}


def _point(points: SweepResults, trial: TrialResult) -> dict[str, Any]:
    numbers = {name: trial.measure(name) for name in TESTED}
    ends = {name: list(pair) for name in TESTED if (pair := trial.interval(name)) is not None}
    return {**_named(points, trial), **numbers, "intervals": ends}


def _named(points: SweepResults, trial: TrialResult) -> dict[str, Any]:
    keys = [run.key for run in trial.seeds] or [trial.key]
    return {"name": short_name(points, trial), "trials": keys}
