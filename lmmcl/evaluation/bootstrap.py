"""Bootstrap over questions: which questions each resample draws, and the scores of a trial in each resample, made when asked for.

Everything that trials share is made once and kept: the draw of a benchmark, and what the pre-trained model has right by chance.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

SMALL_DRAW = 300_000
"""Questions × resamples up to which counts are kept as floating-point numbers too: 2.4 MB each."""
PSEUDO = 2
"""Questions that are added to those of a benchmark where intervals are made: at each stage right or wrong by chance.

Pairs of stages then have half a question more in each of their four cells, as Agresti and Min 2005 add it (Statistics in
Medicine 24:729), so that all right, all wrong or nothing changed has an interval, too.
"""
EXACT = 2**24
"""Whole numbers below this are exact in fp32, and so is every sum of them."""


class Resamples(dict[tuple[int, str], NDArray[np.float64]]):
    """The mean score in points of each (stage, benchmark) in each resample; a measure asks for a few of all these."""

    def __init__(
        self,
        scores: Mapping[tuple[int, str], NDArray[np.float64]],
        checkpoints: Mapping[int, str],
        samples: int,
        seed: int,
    ) -> None:
        super().__init__()
        self._scores, self._checkpoints, self._samples, self._seed = scores, checkpoints, samples, seed
        self._sums: dict[str, _Sums] = {}
        self._stages: dict[str, list[int]] = {}
        for stage, name in sorted(scores):
            self._stages.setdefault(name, []).append(stage)

    def is_binary(self, name: str) -> bool:
        """Whether a benchmark has nothing but right and wrong answers, at all stages."""
        return self._of(name).binary

    def __missing__(self, cell: tuple[int, str]) -> NDArray[np.float64]:
        stage, name = cell
        if cell not in self._scores:
            raise KeyError(cell)
        sums = self._of(name)
        right = right_by_chance(name, self._checkpoints[stage], sums.questions, self._samples, self._seed)
        scores = right * np.float64(sums.top)
        scores += sums.by_stage[stage]
        scores *= 100.0 / (sums.questions + PSEUDO)
        self[cell] = scores
        return scores

    def _of(self, name: str) -> _Sums:
        if name not in self._sums:
            _add_up([self], name)
        return self._sums[name]

    def _rows(self, name: str) -> NDArray[np.float64]:
        """The scores of one benchmark, [stages, questions]."""
        return np.stack([self._scores[stage, name] for stage in self._stages[name]])

    def _keep(self, name: str, sums: NDArray[np.floating], top: float, questions: int, *, binary: bool) -> None:
        self._sums[name] = _Sums(dict(zip(self._stages[name], sums, strict=True)), top, questions, binary)


@dataclass(frozen=True)
class _Sums:
    """Of one benchmark: the sum of the drawn scores in each resample, (samples,) by stage; the highest score."""

    by_stage: Mapping[int, NDArray[np.floating]]
    top: float
    questions: int
    binary: bool


def add_up_together(trials: Sequence[Resamples]) -> None:
    """Make what each of `trials` would make when it is asked, in one product for all: that takes a third of the time."""
    for name in dict.fromkeys(name for resamples in trials for name in resamples._stages):
        _add_up([resamples for resamples in trials if name in resamples._stages], name)


def _add_up(trials: Sequence[Resamples], name: str) -> None:
    """Sums of the drawn scores of one benchmark; whole numbers are added in fp32, which is exact, in whatever order."""
    groups: dict[tuple[int, int, int], list[tuple[Resamples, NDArray[np.float64], float]]] = {}
    for resamples in trials:
        rows = resamples._rows(name)
        draw = questions, samples, seed = rows.shape[1], resamples._samples, resamples._seed
        top, is_whole = max(1.0, float(rows.max())), bool((rows == np.rint(rows)).all())
        if (questions + PSEUDO) * top < EXACT and is_whole:
            groups.setdefault(draw, []).append((resamples, rows, top))
        else:
            sums = _counts_as(name, questions, samples, seed, "float64") @ np.ascontiguousarray(rows.T)
            resamples._keep(name, np.ascontiguousarray(sums.T), top, questions, binary=is_whole and top == 1.0)
    for (questions, samples, seed), members in groups.items():
        every = np.concatenate([rows for _, rows, _ in members]).astype(np.float32)
        sums, start = every @ _counts_as(name, questions, samples, seed, "float32").T, 0
        for resamples, rows, top in members:
            resamples._keep(name, sums[start : start + len(rows)], top, questions, binary=top == 1.0)
            start += len(rows)


@lru_cache(maxsize=32)  # every trial of a sweep asks the same benchmarks, so all of them share a draw
def _draw_counts(name: str, questions: int, samples: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """How often each question is drawn in each resample, [samples, questions], and how often one of PSEUDO, [samples].

    A product with the former is all the means at once.
    Counts are near 1; in a byte (256 of one question are beyond all chance) a draw of 5,000 questions is 5 MB.
    """
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    total = questions + PSEUDO
    drawn = rng.integers(total, size=(samples, total), dtype=np.int32)
    drawn += np.arange(samples, dtype=np.int32)[:, None] * total
    counts = np.bincount(drawn.ravel(), minlength=samples * total).reshape(samples, total)
    return counts[:, :questions].astype(np.uint8), counts[:, questions:].sum(axis=1)


@lru_cache(maxsize=32)
def _kept_counts(name: str, questions: int, samples: int, seed: int, dtype: str) -> NDArray[np.floating]:
    return _draw_counts(name, questions, samples, seed)[0].astype(dtype)


def _counts_as(name: str, questions: int, samples: int, seed: int, dtype: str) -> NDArray[np.floating]:
    """The counts as a product takes them; kept where they are small, which saves a trial of a large sweep most of its time."""
    if questions * samples <= SMALL_DRAW:
        return _kept_counts(name, questions, samples, seed, dtype)
    return _draw_counts(name, questions, samples, seed)[0].astype(dtype)


@lru_cache(maxsize=256)
def right_by_chance(name: str, checkpoint: str, questions: int, samples: int, seed: int) -> NDArray[np.int64]:
    """Of the pseudo-questions of each resample, how many a checkpoint has right; those of the pre-trained model are kept.

    What `Generator.binomial(added, 0.5)` gives, from the same random numbers: each is compared with the thresholds of its own
    number of pseudo-questions, which are the same for all checkpoints.
    """
    words = np.array([seed, zlib.crc32(name.encode()), zlib.crc32(checkpoint.encode())], dtype=np.uint32)
    rng = np.random.default_rng(words)  # as from a list, in less time
    places, thresholds = _thresholds_of_draw(name, questions, samples, seed)
    right = np.zeros(samples, dtype=np.int64)
    right[places] = (rng.random(len(places)) > thresholds).view(np.uint8).sum(axis=0, dtype=np.uint8)
    return right


@lru_cache(maxsize=32)
def _thresholds_of_draw(
    name: str, questions: int, samples: int, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The resamples with pseudo-questions, and of each of them the thresholds, [most pseudo-questions, resamples]."""
    added = _draw_counts(name, questions, samples, seed)[1]
    places = np.flatnonzero(added)
    most = int(added.max(initial=0))
    table = np.array([[*_thresholds(n), *[2.0] * (most - n)] for n in range(most + 1)]).reshape(most + 1, most)
    return places, np.ascontiguousarray(table[added[places]].T)


@lru_cache
def _thresholds(tries: int) -> Sequence[float]:
    """For 1 to `tries` the largest random number that gives fewer successes, by the inversion that NumPy uses."""
    return [_threshold(tries, successes) for successes in range(1, tries + 1)]


def _threshold(tries: int, successes: int) -> float:
    low, high = 0, 2**53 - 1  # random numbers are multiples of 2⁻⁵³
    if _successes(tries, high / 2**53) < successes:
        return 2.0
    while low < high:
        middle = (low + high) // 2
        if _successes(tries, middle / 2**53) >= successes:
            high = middle
        else:
            low = middle + 1
    return (low - 1) / 2**53


def _successes(tries: int, random: float) -> int:
    """Successes of `tries` of probability ½ by inversion, from one random number."""
    successes, chance = 0, math.exp(tries * math.log(0.5))
    while random > chance and successes < tries:
        successes += 1
        random -= chance
        chance = ((tries - successes + 1) * 0.5 * chance) / (successes * 0.5)
    return successes
