"""ScoreMatrix: rows stages (0 = base), columns benchmarks; learning and forgetting, with error bars, come from it."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmmcl.measures import Run, all_measures, together

HIGHEST = 10.0
"""The most that a mean can be, by CIDEr's definition; what exceeds it was entered in points."""


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
        self._resampled: dict[tuple[int, int], Run] = {}

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """The columns: targets in the order first taught, then held-out benchmarks."""
        return tuple(dict.fromkeys(self.targets + self.held_out))

    @property
    def stages(self) -> tuple[int, ...]:
        """The rows that hold at least one score, ascending."""
        return tuple(sorted({stage for stage, _ in self._samples}))

    def add(self, stage: int, scores: Mapping[str, Sequence[float] | NDArray[np.float64]]) -> None:
        """Enter the scores of each question of each benchmark, after `stage`; scores entered before are replaced.

        They are in [0, 1], or weighted so that their mean is (see `balanced`), or CIDEr, which goes to 10. Raises ValueError for
        a stage or benchmark that the matrix does not have, for no scores, negative ones or a mean above 10, and for another
        number of questions than at another stage: intervals pair the questions across stages.
        """
        if not 0 <= stage <= len(self.order):
            raise ValueError(f"stage {stage}: this order has stages 0 to {len(self.order)}")
        for name, values in scores.items():
            array = np.asarray(values, dtype=np.float64)
            self._check(stage, name, array)
            self._samples[stage, name] = array
            self._means[stage, name] = 100.0 * float(array.mean())
        self._resampled.clear()

    def _check(self, stage: int, name: str, array: NDArray[np.float64]) -> None:
        where = f"stage {stage}, benchmark {name}"
        if name not in self.benchmarks:
            raise ValueError(f"{where}: neither taught nor held out; the columns are {', '.join(self.benchmarks)}")
        if array.ndim != 1 or not len(array) or not (np.isfinite(array) & (array >= 0)).all() or array.mean() > HIGHEST:
            raise ValueError(f"{where}: scores must be a non-empty list of numbers, mostly from 0 to 1, never below 0")
        for (other, column), held in self._samples.items():
            if column == name and other != stage and len(held) != len(array):
                raise ValueError(f"{where}: {len(array)} questions, but {len(held)} at stage {other}")

    def has(self, stage: int, benchmark: str) -> bool:
        """Whether this cell was entered."""
        return (stage, benchmark) in self._samples

    def score(self, stage: int, benchmark: str) -> float:
        """The mean score in points, 0 to 100 (CIDEr: to 1000); raises KeyError for a cell that was not entered."""
        return self._means[stage, benchmark]

    def samples(self, stage: int, benchmark: str) -> NDArray[np.float64]:
        """The scores of one cell, question by question; raises KeyError for a cell that was not entered."""
        return self._samples[stage, benchmark].copy()

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
        run = Run(self.order, self.held_out, dict(self._means))
        return {name: float(value) for name, value in all_measures(run, self._stage(stage)).items()}

    def measures_if(self, stage: int, scores: Mapping[str, float]) -> dict[str, float]:
        """Every measure that were defined after `stage` if these were its scores, in points: those of a moment inside it."""
        before = {cell: mean for cell, mean in self._means.items() if cell[0] < stage}
        run = Run(self.order, self.held_out, {**before, **{(stage, name): score for name, score in scores.items()}})
        return {name: float(value) for name, value in all_measures(run, stage).items()}

    def draws(self, stage: int | None = None, samples: int = 1000, seed: int = 0) -> dict[str, NDArray[np.float64]]:
        """The bootstrap distribution of every measure: `samples` values each, in percentage points.

        Each resample draws questions of each benchmark, the same ones at all stages, so differences between stages
        keep their pairing. The draw depends on the seed and the benchmark's name and size alone: two matrices over the
        same benchmarks are paired too, and the difference of their draws is that of the paired bootstrap.
        """
        measures = all_measures(self._resample(samples, seed), self._stage(stage))
        return {name: np.asarray(value, dtype=np.float64) for name, value in measures.items()}

    def score_draws(
        self, stage: int | None = None, samples: int = 1000, seed: int = 0
    ) -> dict[str, NDArray[np.float64]]:
        """The bootstrap distribution of each benchmark's score in one row, paired between matrices as `draws` are."""
        run, row = self._resample(samples, seed), self._stage(stage)
        return {name: np.asarray(run.scores[row, name]) for name in self.benchmarks if self.has(row, name)}

    def intervals(
        self, stage: int | None = None, samples: int = 1000, seed: int = 0, level: float = 0.95
    ) -> dict[str, tuple[float, float]]:
        """The percentile bootstrap interval of every measure of `summary`, over questions (see `draws`).

        It says how far the questions asked may mislead; it knows nothing of other training seeds or orders.
        """
        return _intervals(self.draws(stage, samples, seed), level)

    def score_intervals(
        self, stage: int | None = None, samples: int = 1000, seed: int = 0, level: float = 0.95
    ) -> dict[str, tuple[float, float]]:
        """The percentile bootstrap interval of each benchmark's score in one row, in percentage points."""
        return _intervals(self.score_draws(stage, samples, seed), level)

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

    def _resample(self, samples: int, seed: int) -> Run:
        if (samples, seed) not in self._resampled:
            scores: dict[tuple[int, str], Any] = {}
            for name in self.benchmarks:
                stages = [stage for stage in self.stages if self.has(stage, name)]
                if stages:
                    rows = np.stack([self._samples[stage, name] for stage in stages], axis=1)
                    drawn = _draw_counts(name, len(rows), samples, seed).astype(np.float64)
                    means = drawn @ rows * (100.0 / len(rows))
                    scores |= {(stage, name): means[:, column] for column, stage in enumerate(stages)}
            self._resampled[samples, seed] = Run(self.order, self.held_out, scores)
        return self._resampled[samples, seed]


@lru_cache(maxsize=32)  # every trial of a sweep asks the same benchmarks, so all of them share a draw
def _draw_counts(name: str, questions: int, samples: int, seed: int) -> NDArray[np.uint8]:
    """How often each question is drawn in each resample, [samples, questions]: a product with it is all the means at once.

    Counts are near 1; in a byte (256 of one question are beyond all chance) a draw of 5,000 questions is 5 MB.
    """
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    drawn = rng.integers(questions, size=(samples, questions), dtype=np.int32)
    drawn += np.arange(samples, dtype=np.int32)[:, None] * questions
    return np.bincount(drawn.ravel(), minlength=samples * questions).reshape(samples, questions).astype(np.uint8)


def _intervals(draws: Mapping[str, NDArray[np.float64]], level: float) -> dict[str, tuple[float, float]]:
    if not draws:
        return {}
    ends = np.quantile(np.stack(list(draws.values())), [(1 - level) / 2, (1 + level) / 2], axis=1)
    return {name: (float(low), float(high)) for name, low, high in zip(draws, *ends, strict=True)}
