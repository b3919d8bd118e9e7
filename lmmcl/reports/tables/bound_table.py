"""A sequence of stages between its bounds: the base, each skill alone from the base, and all skills at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from lmmcl.reports import formatting
from lmmcl.reports.recommend import short_name
from lmmcl.reports.results import SweepResults, TrialResult, identity
from lmmcl.reports.seeds import averaged, has_seeds
from lmmcl.reports.tables.small_table import SmallTable

TITLE = "Between the bounds"
HEADS = ("trial", "base", "sequence", "alone", "joint", "of joint", "held-out forg.", "held-out forg. of joint")
NOTE = (
    "Mean scores of the taught skills in points: of the base, after the last stage, of each skill alone from the base, of all "
    "skills at once. Of joint: which share of the gain of joint training the sequence keeps."
)


@dataclass(frozen=True)
class Between:
    """The mean scores of a trial's skills, in points, and those of its bounds; what is not known is None."""

    trial: str
    key: str
    base: float
    sequence: float
    alone: float | None
    joint: float | None
    held_out: float | None
    held_out_joint: float | None

    @property
    def share(self) -> float | None:
        """(sequence − base) / (joint − base); None where joint training gained nothing."""
        gain = None if self.joint is None else self.joint - self.base
        return (self.sequence - self.base) / gain if gain is not None and gain > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """As reports for other programs hold it."""
        return {**asdict(self), "share_of_joint": self.share}


def between_bounds(results: SweepResults) -> list[Between]:
    """Of each finished trial of several skills that has a bound at its grid point, where it lies."""
    results = averaged(results) if has_seeds(results) else results
    bounds: dict[tuple[object, ...], TrialResult] = {}
    for trial in results.trials:
        if trial.state == "done" and (trial.bound or len(trial.skills) == 1) and trial.axes.get("mitigation") is None:
            bounds[_point(trial), _taught(trial)] = trial
    between = []
    for trial in results.trials:
        if trial.state != "done" or trial.bound or len(set(trial.skills)) < 2 or not trial.last:
            continue
        skills = sorted(set(trial.skills))
        if not set(skills) <= set(trial.last.scores):  # a skill whose benchmark has another name
            continue
        joint = bounds.get((_point(trial), tuple(skills)))
        alone = [bounds.get((_point(trial), (skill,))) for skill in skills]
        if joint is None and None in alone:
            continue
        between.append(
            Between(
                short_name(results, trial),
                trial.key,
                _mean([trial.stages[0].scores[skill] for skill in skills]),
                _mean([trial.last.scores[skill] for skill in skills]),
                None
                if None in alone
                else _mean([_end(single, name) for single, name in zip(alone, skills, strict=True)]),
                None if joint is None else _mean([_end(joint, skill) for skill in skills]),
                trial.measure("held_out_forgetting"),
                None if joint is None else joint.measure("held_out_forgetting"),
            )
        )
    return between


def _point(trial: TrialResult) -> tuple[object, ...]:
    """The grid point, whatever is taught in which order and with which mitigation."""
    aside = ("order", "mitigation", "seeds")
    return tuple((axis, identity(value)) for axis, value in trial.axes.items() if axis not in aside)


def _taught(trial: TrialResult) -> tuple[str, ...]:
    """The skills of a bound: those that its one stage teaches."""
    held_out = set(trial.held_out)
    return tuple(sorted(name for name in trial.stages[0].scores if name not in held_out))


def _end(trial: TrialResult | None, skill: str) -> float:
    assert trial is not None and trial.last is not None, "a finished trial has a last stage"
    return trial.last.scores[skill]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _rows(bounds: Sequence[Between]) -> list[list[str]]:
    def score(value: float | None) -> str:
        return "–" if value is None else f"{value:.1f}"

    return [
        [
            bound.trial,
            *map(score, (bound.base, bound.sequence, bound.alone, bound.joint)),
            "–" if bound.share is None else f"{bound.share:.0%}",
            formatting.points(bound.held_out),
            formatting.points(bound.held_out_joint),
        ]
        for bound in bounds
    ]


def bounds_table(results: SweepResults) -> Table | None:
    """For the terminal; None where no trial has a bound."""
    return _table(results).terminal()


def bounds_markdown(results: SweepResults) -> str:
    """The same as Markdown; empty where no trial has a bound."""
    return _table(results).markdown()


def _table(results: SweepResults) -> SmallTable:
    return SmallTable(TITLE, HEADS, _rows(between_bounds(results)), NOTE, texts=(0,))
