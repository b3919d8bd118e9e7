"""ScoreMatrix: rows stages (0 = base), columns benchmarks; learning and forgetting, with error bars, come from it."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmmcl.evaluation.bootstrap import Resamples, add_up_together
from lmmcl.evaluation.intervals import percentiles, wilson
from lmmcl.measures import Run, Value, all_measures, together

HIGHEST = 10.0
"""The most that a mean can be, by CIDEr's definition; what exceeds it was entered in points."""


@dataclass(frozen=True)
class MomentScores:
    """What a checkpoint inside a stage scored: (questions,) by benchmark, as `ScoreMatrix.add` takes them."""

    checkpoint: str
    scores: Mapping[str, Sequence[float] | NDArray[np.float64]]

    def means(self) -> dict[str, float]:
        """The score of each benchmark, in points."""
        return {name: 100.0 * float(np.mean(values)) for name, values in self.scores.items()}


class ScoreMatrix:
    """The scores of one trial, question by question.

    `order` names the target benchmarks as they are taught: the i-th is learnt at stage i + 1 (a name may come again: the
    skill is taught again; a tuple of names is taught at once). `held_out` names benchmarks that nothing taught. Raises
    ValueError for a name in both.

    Rows may be incomplete and come in any order; a measure that needs a missing score is absent, never 0.
    """

    def __init__(self, order: Sequence[str | tuple[str, ...]], held_out: Sequence[str] = ()) -> None:
        self.order = tuple(order)
        self.held_out = tuple(dict.fromkeys(held_out))
        self.targets = tuple(name for taught in self.order for name in together(taught))
        if both := set(self.targets) & set(self.held_out):
            raise ValueError(f"taught and held out at once: {', '.join(sorted(both))}")
        self._samples: dict[tuple[int, str], NDArray[np.float64]] = {}
        self._means: dict[tuple[int, str], float] = {}
        self._checkpoints: dict[int, str] = {}
        self._counts: dict[str, int] = {}
        self._resampled: dict[tuple[int, int], Resamples] = {}
        self._summaries: dict[int, dict[str, float]] = {}
        self._runs: dict[tuple[int, int] | None, Run] = {}

    @cached_property
    def benchmarks(self) -> tuple[str, ...]:
        """The columns: targets in the order first taught, then held-out benchmarks."""
        return tuple(dict.fromkeys(self.targets + self.held_out))

    @property
    def stages(self) -> tuple[int, ...]:
        """The rows that hold at least one score, ascending."""
        return tuple(sorted({stage for stage, _ in self._samples}))

    def add(
        self, stage: int, scores: Mapping[str, Sequence[float] | NDArray[np.float64]], checkpoint: str = ""
    ) -> None:
        """Enter the scores (questions,) of each benchmark, after `stage`, from 0 to 1; scores entered before are replaced.

        `checkpoint` names what was asked, so that two matrices which share it differ in nothing there.
        They are in [0, 1], or weighted so that their mean is (see `balanced`), or CIDEr, which goes to 10. Raises ValueError for
        a stage or benchmark that the matrix does not have, for no scores, negative ones or a mean above 10, and for another
        number of questions than at another stage: intervals pair the questions across stages.
        """
        if not 0 <= stage <= len(self.order):
            raise ValueError(f"stage {stage}: this order has stages 0 to {len(self.order)}")
        self._checkpoints[stage] = checkpoint or str(stage)
        for name, values in scores.items():
            array = np.asarray(values, dtype=np.float64)
            mean = self._check(stage, name, array)
            self._samples[stage, name] = array
            self._means[stage, name] = 100.0 * mean
            self._counts.setdefault(name, len(array))
        for computed in (self._resampled, self._summaries, self._runs):
            computed.clear()

    def _check(self, stage: int, name: str, array: NDArray[np.float64]) -> float:
        """The mean of what can be entered."""
        if name not in self.benchmarks:
            columns = ", ".join(self.benchmarks)
            raise ValueError(f"stage {stage}, benchmark {name}: neither taught nor held out; the columns are {columns}")
        is_list = array.ndim == 1 and len(array)
        is_usable = is_list and np.minimum.reduce(array) >= 0 and np.maximum.reduce(array) < np.inf  # false for NaN
        mean = float(np.add.reduce(array)) / len(array) if is_usable else np.inf
        if mean > HIGHEST:
            why = "scores must be a non-empty list of numbers, mostly from 0 to 1, never below 0"
            raise ValueError(f"stage {stage}, benchmark {name}: {why}")
        if self._counts.get(name, len(array)) != len(array):
            self._check_count(stage, name, len(array))
        return mean

    def _check_count(self, stage: int, name: str, questions: int) -> None:
        for other in range(len(self.order) + 1):
            held = self._samples.get((other, name)) if other != stage else None
            if held is not None and len(held) != questions:
                raise ValueError(
                    f"stage {stage}, benchmark {name}: {questions} questions, but {len(held)} at stage {other}"
                )
        self._counts[name] = questions

    def has(self, stage: int, benchmark: str) -> bool:
        """Whether this cell was entered."""
        return (stage, benchmark) in self._samples

    def score(self, stage: int, benchmark: str) -> float:
        """The mean score in points, 0 to 100 (CIDEr: to 1000); raises KeyError for a cell that was not entered."""
        return self._means[stage, benchmark]

    def samples(self, stage: int, benchmark: str) -> NDArray[np.float64]:
        """The scores of one cell, (questions,); raises KeyError for a cell that was not entered."""
        return self._samples[stage, benchmark].copy()

    def count(self, stage: int, benchmark: str) -> int:
        """How many questions one cell has; raises KeyError for a cell that was not entered."""
        return len(self._samples[stage, benchmark])

    def table(self) -> dict[int, dict[str, float]]:
        """Every entered score in percentage points: {stage: {benchmark: score}}."""
        return {
            stage: {name: self.score(stage, name) for name in self.benchmarks if self.has(stage, name)}
            for stage in self.stages
        }

    def summary(self, stage: int | None = None) -> dict[str, float]:
        """Every measure that is defined after `stage` (default: the last entered), in percentage points.

        See `lmmcl.measures` for what each means. Empty at stage 0.
        """
        row = self._stage(stage)
        if row not in self._summaries:
            measures = all_measures(self._runs.setdefault(None, self._run(self._means)), row)
            self._summaries[row] = {name: float(value) for name, value in measures.items()}
        return dict(self._summaries[row])

    def measures_if(self, stage: int, scores: Mapping[str, float]) -> dict[str, float]:
        """Every measure that were defined after `stage` if these were its scores, in points: those of a moment inside it."""
        before = {cell: mean for cell, mean in self._means.items() if cell[0] < stage}
        run = self._run({**before, **{(stage, name): score for name, score in scores.items()}})
        return {name: float(value) for name, value in all_measures(run, stage).items()}

    def intervals_if(
        self, stage: int, moments: Sequence[MomentScores], samples: int = 1000, seed: int = 0, level: float = 0.95
    ) -> list[dict[str, tuple[float, float]]]:
        """The interval of each measure of `measures_if` at each moment inside a stage, paired with the stages before it as `draws`
        are; a checkpoint of the matrix, such as the end of the stage, has the interval that it has there."""
        cells = {
            (place, name): np.asarray(values, dtype=np.float64)
            for place, moment in enumerate(moments)
            for name, values in moment.scores.items()
        }
        checkpoints = {place: moment.checkpoint for place, moment in enumerate(moments)}
        resampled, before = Resamples(cells, checkpoints, samples, seed), self._resample(samples, seed)
        intervals = []
        for place, moment in enumerate(moments):
            values = self.measures_if(stage, moment.means())  # defined by cells before the stage and these alone
            own: dict[tuple[int, str], Value] = {(stage, name): resampled[place, name] for name in moment.scores}
            draws = all_measures(self._run(ChainMap(own, before)), stage, values)  # type: ignore[arg-type]
            ends = percentiles({name: np.asarray(value) for name, value in draws.items()}, level)
            intervals.append(
                {name: (min(low, values[name]), max(high, values[name])) for name, (low, high) in ends.items()}
            )
        return intervals

    def draws(
        self, stage: int | None = None, samples: int = 1000, seed: int = 0, names: Collection[str] | None = None
    ) -> dict[str, NDArray[np.float64]]:
        """The bootstrap distribution of every measure (or of those of these `names`): (samples,) each, in points.

        Each resample draws questions of each benchmark, the same ones at all stages, so differences between stages
        keep their pairing; among them PSEUDO ones, which draw everything a little towards the middle. The draw depends on the
        seed and the benchmark's name and size alone: two matrices over the same benchmarks are paired too, and the difference of
        their draws is that of the paired bootstrap.
        """
        if (samples, seed) not in self._runs:
            self._runs[samples, seed] = self._run(self._resample(samples, seed))
        measures = all_measures(self._runs[samples, seed], self._stage(stage), names)
        return {name: np.asarray(value, dtype=np.float64) for name, value in measures.items()}

    def score_draws(
        self, stage: int | None = None, samples: int = 1000, seed: int = 0, names: Collection[str] | None = None
    ) -> dict[str, NDArray[np.float64]]:
        """The bootstrap distribution of each benchmark's score in one row: (samples,) each, paired as `draws` are."""
        scores, row = self._resample(samples, seed), self._stage(stage)
        asked = [name for name in self.benchmarks if self.has(row, name) and (names is None or name in names)]
        return {name: scores[row, name] for name in asked}

    def intervals(
        self, stage: int | None = None, samples: int = 1000, seed: int = 0, level: float = 0.95
    ) -> dict[str, tuple[float, float]]:
        """The percentile interval of every measure of `summary`, over questions (see `draws`); it holds the measure.

        It says how far the questions asked may mislead; it knows nothing of other training seeds or orders.
        """
        values = self.summary(stage)
        ends = percentiles(self.draws(stage, samples, seed), level)
        return {name: (min(low, values[name]), max(high, values[name])) for name, (low, high) in ends.items()}

    def all_intervals(
        self,
        stages: Sequence[int],
        samples: int = 1000,
        seed: int = 0,
        level: float = 0.95,
        names: Collection[str] | None = None,
    ) -> dict[int, dict[str, tuple[float, float]]]:
        """`intervals` of several stages at once, which takes less time; with `names` of these measures alone."""
        draws = {
            (stage, name): value for stage in stages for name, value in self.draws(stage, samples, seed, names).items()
        }
        intervals: dict[int, dict[str, tuple[float, float]]] = {stage: {} for stage in stages}
        values = {stage: self.summary(stage) for stage in stages}
        for (stage, name), (low, high) in percentiles(draws, level).items():
            intervals[stage][name] = (min(low, values[stage][name]), max(high, values[stage][name]))
        return intervals

    def fractional(self, samples: int = 1000, seed: int = 0) -> list[str]:
        """The benchmarks whose scores are not all 0 or 1, so that no number of right answers follows from their mean."""
        entered = {name for _, name in self._samples}
        resampled = self._resample(samples, seed)
        return [name for name in self.benchmarks if name in entered and not resampled.is_binary(name)]

    def score_intervals(
        self,
        stage: int | None = None,
        samples: int = 1000,
        seed: int = 0,
        level: float = 0.95,
        names: Collection[str] | None = None,
    ) -> dict[str, tuple[float, float]]:
        """The interval of each benchmark's score in one row (or of those of these `names`), in percentage points.

        Of right and wrong answers Wilson's (1927); of other scores the percentile interval of `score_draws`, which holds the mean.
        """
        row, intervals = self._stage(stage), percentiles(self.score_draws(stage, samples, seed, names), level)
        for name, (low, high) in intervals.items():
            scores, mean = self._samples[row, name], self._means[row, name]
            binary = bool(((scores == 0) | (scores == 1)).all())
            intervals[name] = (
                wilson(int(scores.sum()), len(scores), level) if binary else (min(low, mean), max(high, mean))
            )
        return intervals

    def to_dict(self) -> dict[str, Any]:
        """The matrix as JSON has it; from_dict makes it whole again."""
        return {
            "order": list(self.order),
            "held_out": list(self.held_out),
            "stages": {
                str(stage): {
                    name: self._samples[stage, name].tolist() for name in self.benchmarks if self.has(stage, name)
                }
                for stage in self.stages
            },
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ScoreMatrix:
        """The matrix that to_dict wrote."""
        order = [taught if isinstance(taught, str) else tuple(taught) for taught in data["order"]]
        matrix = cls(order, data["held_out"])
        for stage, row in data["stages"].items():
            matrix.add(int(stage), row)
        return matrix

    def _stage(self, stage: int | None) -> int:
        return max(self.stages, default=0) if stage is None else stage

    def _resample(self, samples: int, seed: int) -> Resamples:
        if (samples, seed) not in self._resampled:
            self._resampled[samples, seed] = Resamples(self._samples, self._checkpoints, samples, seed)
        return self._resampled[samples, seed]

    def _run(self, scores: Mapping[tuple[int, str], Value]) -> Run:
        return Run(self.order, self.held_out, scores)


def resample_together(matrices: Sequence[ScoreMatrix], samples: int = 1000, seed: int = 0) -> None:
    """Make the draws of several trials at once, which takes less time than when each is asked for its own."""
    add_up_together([matrix._resample(samples, seed) for matrix in matrices])
