"""What a report is made from: a sweep's trials with their stages, as plain frozen values that know nothing of the ledger."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lmmcl.config.search_settings import Stopped
from lmmcl.measures import SHOWN
from lmmcl.search.search_state import SearchState

#: The axes every trial has, in the order in which people read a grid.
AXES = ("model", "recipe", "mitigation", "learning_rate", "order", "seed")
MEASURES = SHOWN

PAIRED = ("learning", "held_out_forgetting")
"""The measures in which trials are tested against each other, question by question."""
RESAMPLED = (*PAIRED, "overall")
"""The measures whose bootstrap draws are kept: also of pairs of mitigations and of orders."""

State = Literal["done", "stopped", "partial", "failed"]
STATES: tuple[State, ...] = ("done", "stopped", "partial", "failed")
"""How far a trial came: to its end, to where a budget or a scheduler ended it, or not yet; or it failed."""
Interval = tuple[float, float]


@dataclass(frozen=True)
class Cell:
    """One of the four cells of image × text, each like what was taught (`id`) or not (`ood`); see `lmmcl.reports.image_text_grid`.

    `change` is the mean change of its `benchmarks` against the pre-trained model, in percentage points, with its bootstrap
    interval; None in a cell without benchmarks.
    """

    image: str
    text: str
    change: float | None
    low: float | None
    high: float | None
    benchmarks: tuple[str, ...]


@dataclass(frozen=True)
class StageResult:
    """One stage of a trial: its scores, and what follows from them and from the stages before it.

    `scores` are points from 0 to 100 by benchmark; `measures` and `intervals` are percentage points, and hold what is
    defined at this stage. `curve` has one row for each logged update (`update`, `loss`, `learning_rate`, `grad_norm`,
    `updates_per_second`); `cost` may hold `trained_parameters`, `trained_bytes`, `checkpoint_bytes`, `seconds` and
    `peak_memory_bytes`; `probes` are by `<probe>/<what>`; `cells` is empty where no benchmark says which cell it is
    in. `probe_curve` has one row for each moment inside the stage at which probes looked: `update` and their values, from
    update 0, the start of the stage, to its end. `score_curve` has one for each at which benchmarks were asked: `update`, the four
    measures as if the stage ended there, and `score/<benchmark>`; `moment_intervals` are those of these measures, by update.
    `score_intervals` are those of scores that are not shares of right answers, in points: those of shares follow from the score and
    the count (see `lmmcl.reports.page.score_intervals`). `wordings` are scores of held-out benchmarks in other wordings.
    `trained_key` is of the stage's fine-tune, which several merges may share.
    Stage 0 is the pre-trained model and has no skill.
    """

    number: int
    skill: str | None
    checkpoint_key: str
    scores: Mapping[str, float] = field(default_factory=dict)
    sample_counts: Mapping[str, int] = field(default_factory=dict)
    measures: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    curve: Sequence[Mapping[str, float]] = ()
    cost: Mapping[str, float] = field(default_factory=dict)
    probes: Mapping[str, float] = field(default_factory=dict)
    cells: Sequence[Cell] = ()
    probe_curve: Sequence[Mapping[str, float]] = ()
    score_curve: Sequence[Mapping[str, float]] = ()
    score_intervals: Mapping[str, Interval] = field(default_factory=dict)
    moment_intervals: Mapping[int, Mapping[str, Interval]] = field(default_factory=dict)
    wordings: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    trained_key: str | None = None


@dataclass(frozen=True)
class TrialResult:
    """One point of the grid with the stages it has reached, in order.

    `draws` are the bootstrap distributions of the RESAMPLED measures at the last stage, paired between trials that were asked the
    same questions: the difference of two trials' draws is a paired bootstrap. `seeds` are the trials that this is the mean of
    (see `lmmcl.reports.seeds`); empty for a trial that was run. `stopped` says why a trial was ended before its last stage.
    `bound` is `joint` or `alone` for what others are measured against; no such trial is recommended.
    """

    key: str
    name: str
    axes: Mapping[str, Any]
    skills: Sequence[str]
    held_out: Sequence[str]
    stages: Sequence[StageResult] = ()
    state: State = "partial"
    error: str | None = None
    draws: Mapping[str, NDArray[np.float64]] = field(default_factory=dict, compare=False, repr=False)
    seeds: tuple[TrialResult, ...] = ()
    stopped: Stopped | None = None
    bound: str = ""

    @property
    def last(self) -> StageResult | None:
        """The furthest stage that was reached, or None."""
        return self.stages[-1] if self.stages else None

    def measure(self, name: str) -> float | None:
        """A measure at the last stage; None where it is not defined or not a finite number."""
        return finite(self.last.measures.get(name)) if self.last else None

    def interval(self, name: str) -> Interval | None:
        """The interval of a measure at the last stage; None where there is none."""
        return finite_pair(self.last.intervals.get(name)) if self.last else None

    def cost(self, name: str) -> float | None:
        """A cost over all stages: parameters and peak memory are the largest, bytes and seconds the sum."""
        costs = [value for stage in self.stages if (value := finite(stage.cost.get(name))) is not None]
        if not costs:
            return None
        return max(costs) if name in ("trained_parameters", "trained_bytes", "peak_memory_bytes") else sum(costs)

    def benchmarks(self) -> list[str]:
        """Every benchmark with a score: skills in the order they were taught, then held-out ones, then any other."""
        scored = dict.fromkeys(name for stage in self.stages for name in stage.scores)
        first = [name for name in (*self.skills, *self.held_out) if name in scored]
        return list(dict.fromkeys([*first, *scored]))


@dataclass(frozen=True)
class SweepResults:
    """All trials of a sweep. `wanted` and `recorded` count steps; `provenance` says what made the numbers.

    `searches` are those that propose trials, with how far each is; `notes` what a reader of the numbers must know.
    """

    name: str
    trials: Sequence[TrialResult]
    file: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    wanted: int | None = None
    recorded: int | None = None
    searches: Sequence[SearchState] = ()
    notes: Sequence[str] = ()

    def axes(self) -> list[str]:
        """The names of all axes: the known ones first, then the others as they come."""
        others = dict.fromkeys(axis for trial in self.trials for axis in trial.axes)
        return list(dict.fromkeys([*AXES, *others]))

    def values(self, axis: str) -> list[Any]:
        """The different values on an axis: numbers by size, words as they come, None first."""
        by_identity = {identity(value): value for value in (trial.axes.get(axis) for trial in self.trials)}
        return in_order(by_identity.values())

    def varying(self) -> list[str]:
        """The axes on which trials differ."""
        return list(self._varying)

    @cached_property
    def _varying(self) -> tuple[str, ...]:
        """Every name of a trial asks for it, and it takes a look at every trial."""
        return tuple(axis for axis in self.axes() if len(self.values(axis)) > 1)

    @cached_property
    def memo(self) -> dict[str, Any]:
        """What was computed from these results and takes long, by name: several parts of a report ask for it."""
        return {}

    def constant(self) -> dict[str, Any]:
        """The axes on which all trials agree, with the value."""
        return {
            axis: values[0] for axis in self.axes() if len(values := self.values(axis)) == 1 and values[0] is not None
        }


def finite(value: Any) -> float | None:
    """The number, or None for what is absent, not a number or infinite: JSON and charts have no NaN."""
    if value is None or isinstance(value, str):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def finite_pair(pair: Interval | None) -> Interval | None:
    """The interval, or None when it is absent or an end of it is not finite."""
    if pair is None:
        return None
    low, high = finite(pair[0]), finite(pair[1])
    return None if low is None or high is None else (low, high)


def identity(value: Any) -> str:
    """A word for a value of an axis that equal values share, hashable even when the value is a list or mapping."""
    return f"{float(value):.17g}" if _is_number(value) else repr(value)


def in_order(values: Iterable[Any]) -> list[Any]:
    """Numbers by size, words as they come, None first."""
    listed = list(values)
    none = [value for value in listed if value is None]
    numbers = sorted(value for value in listed if _is_number(value))
    return none + numbers + [value for value in listed if value is not None and not _is_number(value)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
