"""Which trial to take, in words: the Pareto front, what is within noise, and the choice under a forgetting budget."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmmcl.config.trial_names import SEPARATOR, name_part
from lmmcl.reports import formatting
from lmmcl.reports.paired import ALPHA, AT_ONCE, Estimate, estimate, estimates, holm, p_values_of, within_noise
from lmmcl.reports.pareto import comparable, fronts, has_learned, place
from lmmcl.reports.results import PAIRED, SweepResults, TrialResult

BUDGET = 2.0
"""Points of held-out forgetting that are accepted where nobody says otherwise."""
MOST_TIES = 5
"""Trials within noise that are named; the others are counted."""
TESTED = PAIRED


@dataclass(frozen=True)
class Indistinguishable:
    """A finished trial that differs significantly from a choice neither in learning nor in held-out forgetting: trial − choice."""

    trial: TrialResult
    differences: Mapping[str, Estimate]


@dataclass(frozen=True)
class Candidate:
    """A trial of a front, with what is within noise of it (nearest first) out of `rivals` trials it was tested against."""

    trial: TrialResult
    ties: Sequence[Indistinguishable]
    rivals: int

    @property
    def least_budget(self) -> float:
        """The smallest budget that allows this trial."""
        return -_value(self.trial, "held_out_forgetting")

    @property
    def sure_budget(self) -> float | None:
        """The smallest budget that its whole interval keeps within; None where it has no interval."""
        interval = self.trial.interval("held_out_forgetting")
        return None if interval is None else -interval[0]


@dataclass(frozen=True)
class Recommendation:
    """The choices of one set of comparable trials: those of the front, from the least learnt to the most."""

    model: str
    choices: Sequence[Candidate]
    least_lost: TrialResult
    finished: int

    def under(self, budget: float) -> Candidate | None:
        """The trial that learns most of those that lose at most `budget` points; None when every trial loses more.

        It always is on the front: what beats it would lose no more.
        """
        allowed = [choice for choice in self.choices if choice.least_budget <= budget]
        return allowed[-1] if allowed else None


def recommend(results: SweepResults) -> list[Recommendation]:
    """One advice for each set of comparable trials that has a finished one which has learned."""
    if "recommendations" not in results.memo:
        results.memo["recommendations"] = _recommend(results)
    advices: list[Recommendation] = results.memo["recommendations"]
    return advices


def _recommend(results: SweepResults) -> list[Recommendation]:
    groups: dict[object, list[TrialResult]] = defaultdict(list)
    for trial in results.trials:
        if trial.state == "done" and not trial.bound and place(trial) is not None:
            groups[comparable(trial)].append(trial)
    advice = []
    for front in fronts(results):
        group = groups[comparable(front[0])]
        least = max(filter(has_learned, group), key=lambda trial: _value(trial, "held_out_forgetting"))
        screen = _Screen(group, front)
        choices = [_choice(trial, group, screen) for trial in front]
        advice.append(Recommendation(str(front[0].axes.get("model")), choices, least, len(group)))
    return advice


def _choice(chosen: TrialResult, group: Sequence[TrialResult], screen: _Screen) -> Candidate:
    """Every rival is tested in both measures; Holm's correction is over all of these tests."""
    near = screen.near(chosen)
    if near is None:
        tested = _tested(chosen, [rival for rival in group if rival is not chosen])
        corrected = holm([tie.differences[name].p for tie in tested for name in TESTED])
        pairs = zip(corrected[::2], corrected[1::2], strict=True)
        ties, rivals = [tie for tie, pair in zip(tested, pairs, strict=True) if min(pair) >= ALPHA], len(tested)
    else:
        ties, rivals = _tested(chosen, near), len(group) - 1
    return Candidate(chosen, sorted(ties, key=lambda tie: -_value(tie.trial, "learning")), rivals)


def _tested(chosen: TrialResult, rivals: Sequence[TrialResult]) -> list[Indistinguishable]:
    """The differences of those rivals for which both measures can be tested."""
    tested = []
    by_name = {name: _differences(chosen, rivals, name) for name in TESTED}
    for number, rival in enumerate(rivals):
        known = {name: estimate for name in TESTED if (estimate := by_name[name][number]) is not None}
        if len(known) == len(TESTED):
            tested.append(Indistinguishable(rival, known))
    return tested


class _Screen:
    """Of a group of one seed each, what is within noise of some trials: for all pairs at once, since large sweeps have millions."""

    def __init__(self, group: Sequence[TrialResult], trials: Sequence[TrialResult]) -> None:
        self._group, self._p_values = group, dict[str, list[NDArray[np.float64]]]()
        known = all(trial.measure(name) is not None and name in trial.draws for trial in group for name in TESTED)
        if not known or len(group) == 1 or any(trial.seeds for trial in group):
            return
        places = {trial.key: place for place, trial in enumerate(group)}
        ones = [places[trial.key] for trial in trials]
        for name in TESTED:
            values = [_value(trial, name) for trial in group]
            rows = p_values_of(values, [trial.draws[name] for trial in group], ones)
            for trial, one, row in zip(trials, ones, rows, strict=True):
                self._p_values.setdefault(trial.key, []).append(np.delete(row, one))

    def near(self, chosen: TrialResult) -> list[TrialResult] | None:
        """The rivals that `_tested` and Holm's correction would leave, in their order; None where each must be tested."""
        if chosen.key not in self._p_values:
            return None
        near = within_noise(np.stack(self._p_values[chosen.key], axis=1))
        rivals = [trial for trial in self._group if trial is not chosen]
        return None if near is None else [rivals[number] for number in np.flatnonzero(near)]


def difference(one: TrialResult, other: TrialResult, name: str) -> Estimate | None:
    """The final measure of other − one, paired over questions and, where both have them, over seeds; None without draws."""
    pairs = _seed_pairs(one, other)
    values, draws = [], []
    for a, b in pairs:
        first, second = a.measure(name), b.measure(name)
        if first is None or second is None or name not in a.draws or name not in b.draws:
            return None
        values.append(second - first)
        draws.append(b.draws[name] - a.draws[name])
    return estimate(values, draws)


def _differences(one: TrialResult, others: Sequence[TrialResult], name: str) -> list[Estimate | None]:
    """`difference` of each of `others`; those without seeds all at once, for a large sweep has a million pairs."""
    by_number: dict[int, Estimate | None] = {}
    alone = [number for number, other in enumerate(others) if len(_seed_pairs(one, other)) == 1 and not other.seeds]
    first = one.measure(name)
    if one.seeds or first is None or name not in one.draws:
        alone = []
    known = [number for number in alone if others[number].measure(name) is not None and name in others[number].draws]
    for start in range(0, len(known), AT_ONCE):
        chunk = known[start : start + AT_ONCE]
        values = [_value(others[number], name) - first for number in chunk if first is not None]
        draws = np.stack([others[number].draws[name] for number in chunk]) - one.draws[name]
        by_number |= dict(zip(chunk, estimates(values, draws), strict=True))
    return [
        by_number[number] if number in by_number else difference(one, other, name)
        for number, other in enumerate(others)
    ]


def _seed_pairs(one: TrialResult, other: TrialResult) -> list[tuple[TrialResult, TrialResult]]:
    """The trials of the seeds that both have, or the two themselves where those are fewer than two."""
    left, right = ({trial.axes.get("seed"): trial for trial in side.seeds} for side in (one, other))
    pairs = [(left[seed], right[seed]) for seed in left if seed in right]
    return pairs if len(pairs) > 1 else [(one, other)]


def short_name(results: SweepResults, trial: TrialResult) -> str:
    """What sets the trial apart in its sweep, in the words of its name: `sa_proj · lr 1e-3`."""
    parts = []
    for axis in results.varying():
        part = name_part(axis, trial.axes.get(axis)) if axis != "seeds" else None
        if part is not None:
            parts.append(part)
    order = sorted(parts, key=lambda part: part == trial.axes.get("model"))
    return SEPARATOR.join(order) or trial.name


def choice_lines(results: SweepResults, choice: Candidate) -> list[str]:
    """What there is to say of a choice whatever the budget: its numbers, then what is within noise of it."""
    trial = choice.trial
    numbers = (
        f"It learns {_range(trial, 'learning')} points and changes the held-out benchmarks by "
        f"{_range(trial, 'held_out_forgetting')} points."
    )
    if not choice.rivals:
        return [numbers]
    apart = choice.rivals - len(choice.ties)
    if not choice.ties:
        others = f"all {choice.rivals} other finished trials" if choice.rivals > 1 else "the other finished trial"
        return [numbers, f"It differs significantly from {others}."]
    named = "; ".join(_tie(results, tie) for tie in choice.ties[:MOST_TIES])
    more = len(choice.ties) - MOST_TIES
    comparison = f"Within noise of it: {named}{f'; and {more} more' if more > 0 else ''}."
    if choice.rivals > 1:
        comparison += f" It differs significantly from {apart or 'none'} of the {choice.rivals} other finished trials."
    return [numbers, comparison]


def _tie(results: SweepResults, tie: Indistinguishable) -> str:
    parts = []
    for name, label in zip(TESTED, ("learning", "held-out"), strict=True):
        estimate = tie.differences[name]
        parts.append(f"{label} {formatting.points_range(estimate.value, (estimate.low, estimate.high))}")
    return f"{short_name(results, tie.trial)} ({', '.join(parts)})"


def caution(results: SweepResults) -> str:
    """What the intervals do not know."""
    seeds = max((len(trial.seeds) for trial in results.trials), default=0)
    known = (
        f"Intervals cover the sampling of questions and of seeds (up to {seeds})"
        if seeds > 1
        else "One seed per trial: intervals cover the sampling of questions, not of seeds"
    )
    return f"{known}; the best of many trials is biased upwards (selection). Within noise: paired, at 5 % after Holm's correction."


def risk_line(sure_budget: float) -> str:
    """The line about a choice whose interval exceeds the budget."""
    return f"Forgetting may exceed the budget: the interval reaches {formatting.points(-sure_budget)}."


def recommendation(
    results: SweepResults, budget: float = BUDGET, advices: Sequence[Recommendation] | None = None
) -> list[str]:
    """A short paragraph, line by line; empty where no trial is finished. `advices` are those of `recommend`, where at hand."""
    lines = []
    advices = recommend(results) if advices is None else advices
    if not advices and any(trial.state == "done" and place(trial) is not None for trial in results.trials):
        return [
            "No finished trial has learned anything (the interval of its learning reaches 0), so none is recommended."
        ]
    for advice in advices:
        lines += [f"{advice.model}:"] if len(advices) > 1 else []
        lines += _advice_lines(results, advice, budget)
    return [*lines, caution(results)] if lines else []


def _advice_lines(results: SweepResults, advice: Recommendation, budget: float) -> list[str]:
    choice, most = advice.under(budget), advice.choices[-1]
    if choice is None:
        least = advice.least_lost
        lines = [
            f"No finished trial keeps within {budget:g} points of held-out forgetting; "
            f"the least is lost by {short_name(results, least)}: {_range(least, 'held_out_forgetting')}."
        ]
    else:
        lines = [f"Take {short_name(results, choice.trial)}.", *choice_lines(results, choice)]
        if choice.sure_budget is not None and budget < choice.sure_budget:
            lines.append(risk_line(choice.sure_budget))
    if choice is not most:
        lines.append(
            f"Without a budget {short_name(results, most.trial)} learns most: {_range(most.trial, 'learning')}, "
            f"held-out {_range(most.trial, 'held_out_forgetting')}."
        )
    names = [short_name(results, candidate.trial) for candidate in advice.choices]
    shown = names if len(names) <= 2 * MOST_TIES else [*names[:MOST_TIES], "…", *names[-MOST_TIES:]]
    lines.append(f"On the front, from the least learnt to the most: {' → '.join(shown)}.")
    return lines


def recommendation_markdown(results: SweepResults, budget: float = BUDGET) -> str:
    """The same as Markdown; empty where no trial is finished."""
    lines = recommendation(results, budget)
    text = [f"### Which to take, with at most {budget:g} points of held-out forgetting", ""]
    return "\n".join([*text, *(f"{formatting.escape_markdown(line)}  " for line in lines), ""]) if lines else ""


def _value(trial: TrialResult, name: str) -> float:
    value = trial.measure(name)
    assert value is not None, "only trials with a place are compared"
    return value


def _range(trial: TrialResult, name: str) -> str:
    return formatting.points_range(trial.measure(name), trial.interval(name))
