"""How a sweep is searched: a budget that ends trials, a scheduler, and a search that proposes trials (see `draws`).

None of it is identity: it decides which trials are walked and how far, never what a step computes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from lmmcl.config.settings import Settings
from lmmcl.config.validation import join
from lmmcl.errors import UserError, unknown
from lmmcl.measures import MEASURES, OLD_NAMES, better

NEEDS_HELD_OUT = frozenset({"held_out_forgetting", "h_score"})
NEEDS_TWO_SKILLS = frozenset({"target_forgetting", "bwt", "fwt", "chaudhry_forgetting"})
_OLD_NAME = {new: old for old, new in OLD_NAMES.items()}


def _known(name: str) -> str:
    """The present name of a measure; raises ValueError for a name that none has or had."""
    if (present := OLD_NAMES.get(name, name)) not in MEASURES:
        raise ValueError(unknown("measure", name, MEASURES))
    return present


def _named_once(measures: Any) -> Any:
    """Refuses a mapping that gives one measure under its old and its present name."""
    for old, present in OLD_NAMES.items() if isinstance(measures, dict) else ():
        if old in measures and present in measures:
            raise ValueError(f"{old} is the old name of {present}: give one of them")
    return measures


def _as_recorded(value: Any) -> Any:
    """Settings with the names of measures that digests in stores were made of."""
    if isinstance(value, dict):
        return {_OLD_NAME.get(name, name): _as_recorded(inner) for name, inner in value.items()}
    return _OLD_NAME.get(value, value) if isinstance(value, str) else value


Measure = Annotated[str, AfterValidator(_known)]
Direction = Literal["max", "min"]


class Limit(Settings):
    """Bounds of one measure, in percentage points; a stage outside them ends its trial."""

    below: float | None = Field(default=None, description="ends a trial whose measure is below this")
    above: float | None = Field(default=None, description="ends a trial whose measure is above this")

    @model_validator(mode="after")
    def _some_value_is_within(self) -> Limit:
        if self.below is None and self.above is None:
            raise ValueError("needs below or above, such as {below: -10}")
        if self.below is not None and self.above is not None and self.below >= self.above:
            raise ValueError(f"every value is below {self.below:g} or above {self.above:g}: all trials would end")
        return self

    def broken_by(self, value: float) -> float | None:
        """The bound that `value` is outside of, or None."""
        if self.below is not None and value < self.below:
            return self.below
        if self.above is not None and value > self.above:
            return self.above
        return None


@dataclass(frozen=True)
class Stopped:
    """Why a trial ended before its last stage: after `stage`, a measure was outside its limit; `by` is `budget` or `asha`."""

    stage: int
    measure: str
    value: float
    limit: float
    by: str = "budget"

    def to_dict(self) -> dict[str, Any]:
        """As reports for other programs, and stage reports, hold it."""
        return asdict(self)

    def __str__(self) -> str:
        side = "below" if self.value < self.limit else "above"
        rule = "" if self.by == "budget" else f" ({self.by})"
        name = self.measure.replace("held_out", "held-out").replace("_", " ")
        return f"{name} {self.value:+.1f} is {side} {self.limit:+.3g} after stage {self.stage}{rule}"


def budget_broken(stop: Mapping[str, Limit], stage: int, measures: Mapping[str, float]) -> Stopped | None:
    """The first limit of `stop` that the measures after `stage` break; one that is not defined yet breaks nothing."""
    for name, limit in stop.items():
        if name in measures and (bound := limit.broken_by(measures[name])) is not None:
            return Stopped(stage, name, measures[name], bound)
    return None


class Asha(Settings):
    """Asynchronous successive halving (arXiv 1810.05934) over stages, by Ray Tune: the best 1/reduction_factor continue."""

    metric: Measure = Field(description="the measure by which trials are compared")
    mode: Direction | None = Field(default=None, description="default max (min for `chaudhry_forgetting`)")
    grace_stages: int = Field(default=1, ge=1, description="stages that every trial completes before it may be stopped")
    reduction_factor: float = Field(default=3, gt=1, description="one of this many trials is promoted at each rung")

    @property
    def direction(self) -> Direction:
        """Whether more or less of the metric is better."""
        return self.mode or better(self.metric)

    def identity(self) -> dict[str, Any]:
        """What its decisions depend on."""
        settings: dict[str, Any] = _as_recorded(self.model_dump(mode="json"))
        return settings

    def rungs(self, stages: int) -> tuple[int, ...]:
        """The stages before the last of `stages` at which trials are compared."""
        rungs, at = [], float(self.grace_stages)
        while at < stages:
            rungs.append(rung := -int(-at // 1))
            at *= self.reduction_factor
            if at <= rung:  # a factor close to 1 has many powers before the next stage
                power = math.log(rung / self.grace_stages) // math.log(self.reduction_factor) + 1
                at = max(self.grace_stages * self.reduction_factor**power, math.nextafter(rung, math.inf))
        return tuple(rung for rung in dict.fromkeys(rungs) if rung < stages)  # 4.9 stages are all five


class Scheduler(Settings):
    """Which trials may continue; one scheduler."""

    asha: Asha


class Optuna(Settings):
    """A search by Optuna over the drawn axes of the grids: one for each combination of the values that are listed there."""

    trials: int = Field(gt=0, le=100_000, description="points to propose, in each search")
    objectives: Annotated[dict[Measure, Direction], BeforeValidator(_named_once)] = Field(
        min_length=1, description="{learning: max, held_out_forgetting: max}"
    )
    seed: int = Field(default=0, ge=0, description="of the proposals, not of the training")
    startup: int = Field(default=10, ge=1, description="points drawn at random before the search uses earlier results")

    def identity(self) -> dict[str, Any]:
        """What the proposals depend on; raising `trials` continues the same search."""
        settings: dict[str, Any] = _as_recorded(self.model_dump(mode="json", exclude={"trials"}))
        return settings


class Search(Settings):
    """How the trials are searched; without it every trial of every grid is walked to its end."""

    stop: Annotated[dict[Measure, Limit], BeforeValidator(_named_once)] = Field(
        default_factory=dict, description="{held_out_forgetting: {below: -10}}"
    )
    scheduler: Scheduler | None = None
    optuna: Optuna | None = None

    @property
    def asha(self) -> Asha | None:
        """The scheduler's settings."""
        return self.scheduler.asha if self.scheduler else None


def check_search(
    search: Search, orders: Sequence[Sequence[Any]], held_out: Sequence[Any], draws: bool, file: str
) -> None:
    """Refuse what could never act: measures that the sweep does not have or that come too late, a search without ranges, a
    grace without end. `orders` are those that trials have."""
    shortest, longest = min(map(len, orders)), max(map(len, orders))
    named = [(join("search", "stop", name), name, longest) for name in search.stop]
    acting = list(named)
    if search.asha:
        place, metric = join("search", "scheduler", "asha"), search.asha.metric
        named.append((join(place, "metric"), metric, shortest))
        if not (rungs := search.asha.rungs(longest)):
            why = f"{search.asha.grace_stages} of at most {longest} stages leaves no stage after which a trial could be stopped"
            raise UserError(why, file=file, place=join(place, "grace_stages"))
        acting.append((join(place, "metric"), metric, rungs[-1] + 1))
    if search.optuna:
        named += [(join("search", "optuna", "objectives", name), name, shortest) for name in search.optuna.objectives]
        if not draws:
            raise UserError(
                "no axis of the grids is drawn; give one a range, such as learning_rate: {log_uniform: [1.0e-6, 1.0e-4]}",
                file=file,
                place=join("search", "optuna"),
            )
    for place, name, skills in named:
        if name in NEEDS_HELD_OUT and not held_out:
            raise UserError(f"{name} needs benchmarks.held_out, which is empty", file=file, place=place)
        if name in NEEDS_TWO_SKILLS and skills < 2:
            raise UserError(f"{name} needs an order of two skills or more", file=file, place=place)
    for place, name, stages in acting:
        first = 2 if name in NEEDS_TWO_SKILLS else 1
        if stages <= first:
            raise UserError(_too_late(name, first, longest, place), file=file, place=place)


def _too_late(name: str, first: int, longest: int, place: str) -> str:
    """Why a measure ends no trial: it first exists where nothing is left to end, or where trials are compared no more."""
    since = f"{name} is defined from stage {first} on, "
    if place.endswith("metric"):
        return f"{since}and trials are compared at no stage from there to the last ({longest}): choose another metric"
    return f"{since}and the longest order ends with stage {longest}: a trial cannot be stopped after its last stage"
