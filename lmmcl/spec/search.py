"""How a sweep is searched: a budget that ends trials, a scheduler, and values that a search draws instead of a list.

None of it is identity: it decides which trials are walked and how far, never what a step computes.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from lmmcl.errors import UserError, unknown
from lmmcl.spec.door import join
from lmmcl.spec.settings import Settings

MEASURES = (
    "learning",
    "target_forgetting",
    "overall",
    "held_out_forgetting",
    "bwt",
    "fwt",
    "forgetting",
    "mft",
    "mfn",
    "maa",
    "h_score",
)
"""What a stage report holds, by name (see `lmmcl.evaluation.measures`, which a lower floor cannot import)."""
NEEDS_HELD_OUT = frozenset({"held_out_forgetting", "h_score"})
NEEDS_TWO_SKILLS = frozenset({"target_forgetting", "bwt", "fwt", "forgetting"})
LESS_IS_BETTER = frozenset({"forgetting"})
DIGITS = 3
"""Significant digits of a drawn number: names and keys stay readable, and nobody can tell finer rates apart."""


def _known(name: str) -> str:
    if name not in MEASURES:
        raise ValueError(unknown("measure", name, MEASURES))
    return name


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
    """Asynchronous successive halving (arXiv 1810.05934) over stages, by Ray Tune: the best 1/reduction_factor go on."""

    metric: Measure
    mode: Direction | None = Field(default=None, description="default max (min for `forgetting`)")
    grace_stages: int = Field(default=1, ge=1, description="stages that every trial may walk")
    reduction_factor: float = Field(default=3, gt=1, description="of so many trials one goes beyond a rung")

    @property
    def direction(self) -> Direction:
        """Whether more or less of the metric is better."""
        return self.mode or ("min" if self.metric in LESS_IS_BETTER else "max")

    def rungs(self, stages: int) -> tuple[int, ...]:
        """The stages before the last of `stages` at which trials are compared."""
        found, at = [], float(self.grace_stages)
        while at < stages:
            found.append(-int(-at // 1))
            at *= self.reduction_factor
        return tuple(dict.fromkeys(found))


class Scheduler(Settings):
    """Which trials may go on; one scheduler."""

    asha: Asha


class Optuna(Settings):
    """A search by Optuna over the drawn axes of the grids: one for each combination of the values that are listed there."""

    trials: int = Field(gt=0, description="points to propose, in each search")
    objectives: dict[Measure, Direction] = Field(min_length=1, description="{learning: max, held_out_forgetting: max}")
    seed: int = Field(default=0, ge=0, description="of the proposals, not of the training")
    startup: int = Field(default=10, ge=1, description="points that are drawn at random before others are learnt from")

    def identity(self) -> dict[str, Any]:
        """What the proposals depend on; more trials go on with the same search."""
        return self.model_dump(mode="json", exclude={"trials"})


class Search(Settings):
    """How the trials are searched; without it every trial of every grid is walked to its end."""

    stop: dict[Measure, Limit] = Field(default_factory=dict, description="{held_out_forgetting: {below: -10}}")
    scheduler: Scheduler | None = None
    optuna: Optuna | None = None

    @property
    def asha(self) -> Asha | None:
        """The scheduler's settings."""
        return self.scheduler.asha if self.scheduler else None


class Choice(Settings):
    """One of some values, left to the search. (Of values in a list, every one is a trial.)"""

    choice: Annotated[list[Any], Field(min_length=2)]

    @property
    def kind(self) -> str:
        """The key that was given."""
        return "choice"


class Draw(Settings):
    """Where a search finds the values of an axis: exactly one of the four."""

    log_uniform: tuple[float, float] | None = Field(
        default=None, description="[lowest, highest], even in the logarithm"
    )
    uniform: tuple[float, float] | None = Field(default=None, description="[lowest, highest]")
    int_uniform: tuple[int, int] | None = Field(default=None, description="[lowest, highest], whole numbers")
    choice: Annotated[list[Any], Field(min_length=2)] | None = None

    @model_validator(mode="after")
    def _one_that_can_be_drawn(self) -> Draw:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of {', '.join(type(self).model_fields)}")
        if self.choice is None and self.low >= self.high:
            raise ValueError(f"{self.kind}: [lowest, highest], not [{self.low:g}, {self.high:g}]")
        if self.log_uniform is not None and self.low <= 0:
            raise ValueError(f"log_uniform: the lowest value must be greater than 0, not {self.low:g}")
        return self

    @property
    def kind(self) -> str:
        """The key that was given."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)

    @property
    def low(self) -> float:
        """The lowest value of a range."""
        return self._range[0]

    @property
    def high(self) -> float:
        """The highest value of a range."""
        return self._range[1]

    @property
    def _range(self) -> tuple[float, float]:
        found = self.log_uniform or self.uniform or self.int_uniform
        assert found is not None, "a choice has no range"
        return found

    def rounded(self, value: float) -> float:
        """A drawn number with few digits, still within the range."""
        if self.int_uniform is not None:
            return round(value)
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)


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
            why = f"{search.asha.grace_stages} of at most {longest} stages leaves none to end a trial after"
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
    said = f"{name} exists from stage {first} on, "
    if place.endswith("metric"):
        return f"{said}and no stage from there to the last ({longest}) compares trials: name another metric"
    return f"{said}and the longest order ends with stage {longest}: after the last stage there is nothing to end"


def axis_of(values: Any, drawn: type[Draw] | type[Choice] = Draw) -> Any:
    """The type of an axis: a list of `values`, or what a search draws from. A refusal tells of the one that was meant."""

    def which(given: Any) -> str:
        return DRAWN if isinstance(given, Draw | Choice) or (isinstance(given, Mapping) and _draws(given)) else LISTED

    return Annotated[
        Annotated[values, BeforeValidator(_no_mapping), Tag(LISTED)] | Annotated[drawn, Tag(DRAWN)],
        Discriminator(which),
    ]


def _draws(given: Mapping[Any, Any]) -> bool:
    """Whether a mapping is meant as a draw: it is empty, or some key is (nearly) one of a draw."""
    return not given or any(difflib.get_close_matches(str(key), Draw.model_fields, n=1) for key in given)


def _no_mapping(given: Any) -> Any:
    if isinstance(given, Mapping):
        raise ValueError(f"every value is a list: `[…]`, here `[{{{next(iter(given))}: …}}]`")
    return given


LISTED, DRAWN = "<list>", "<draw>"
"""Parts of pydantic's places that stand in no file; `lmmcl.spec.door` leaves them out."""
