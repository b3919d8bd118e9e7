"""Is a difference more than luck? Paired statistics of two trials that were asked the same questions. Pure numbers.

Two things vary. *Questions*: other ones might have been asked; both trials answer the same ones, so their difference is
resampled as a whole (paired bootstrap). *Seeds*: another training run would have ended elsewhere; known only where a sweep
has more than one. The two variances add (Owen 2007, The pigeonhole bootstrap: a little too wide, never too narrow), and
the few seeds make a t distribution with Satterthwaite's degrees of freedom (1946) of the normal one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
ALPHA = 1 - LEVEL
FLIPS, PORTIONS = 9_999, 9
ENUMERATED = 14
"""Differing questions up to which all sign flips are counted (2¹⁴); above, FLIPS of them are drawn."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean in percentage points with its interval and the two-sided p-value of its being 0."""

    value: float
    low: float
    high: float
    p: float


def estimate(values: Sequence[float], draws: Sequence[NDArray[np.float64]], level: float = LEVEL) -> Estimate:
    """The mean of `values` (one a seed) from their bootstrap `draws` over questions ((samples,) each, paired)."""
    over_questions = float(np.var(np.mean(np.stack(list(draws)), axis=0), ddof=1))
    return from_variances(values, over_questions, level)


def estimates(values: Sequence[float], draws: NDArray[np.float64], level: float = LEVEL) -> list[Estimate]:
    """`estimate` of many differences of one seed each, (differences,) and (differences, samples)."""
    from scipy.special import ndtr, ndtri

    errors, means = np.sqrt(np.var(draws, axis=1, ddof=1)), np.asarray(values, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.where(errors > 0, 2 * ndtr(-np.abs(means) / errors), np.where(means == 0, 1.0, 0.0))
    reach = errors * float(ndtri((1 + level) / 2))
    columns = (means, means - reach, means + reach, p)
    return [Estimate(*map(float, numbers)) for numbers in zip(*columns, strict=True)]


def from_variances(values: Sequence[float], over_questions: float, level: float = LEVEL) -> Estimate:
    """The mean of `values` (one a seed) where the questions alone give it the variance `over_questions`."""
    from scipy.special import ndtr, ndtri, stdtr, stdtrit

    seeds, mean = len(values), float(np.mean(values))
    over_seeds = float(np.var(values, ddof=1)) / seeds if seeds > 1 else 0.0
    error = math.sqrt(over_questions + over_seeds)
    if error == 0:
        return Estimate(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    if over_seeds == 0:
        p, reach = 2 * ndtr(-abs(mean) / error), ndtri((1 + level) / 2)
    else:
        freedom = (seeds - 1) * ((over_questions + over_seeds) / over_seeds) ** 2
        p, reach = 2 * stdtr(freedom, -abs(mean) / error), stdtrit(freedom, (1 + level) / 2)
    return Estimate(mean, mean - error * float(reach), mean + error * float(reach), float(p))


def sign_flip_p(differences: NDArray[np.float64]) -> float:
    """Two-sided p-value of a mean of paired differences (questions,): how often do random signs lead as far from 0?

    Exact where the differences have one size (right and wrong answers: McNemar's exact test) or few of them are not 0; else
    from 9,999 random flips, the same ones each time, with the observed one among them (Phipson & Smyth 2010).
    """
    from scipy.special import bdtr  # scipy.stats takes a second to import

    sizes = np.abs(differences[differences != 0])
    if not len(sizes):
        return 1.0
    if np.ptp(sizes) == 0:
        fewer = min(int((differences > 0).sum()), int((differences < 0).sum()))
        return min(1.0, 2 * float(bdtr(fewer, len(sizes), 0.5)))
    reached = abs(float(differences.sum())) - 1e-9 * float(
        sizes.sum()
    )  # sums in another order differ in the last digits
    if len(sizes) <= ENUMERATED:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(sizes))))
        return float((np.abs(signs @ sizes) >= reached).mean())
    dice, hits = np.random.default_rng(0), 0
    for _ in range(PORTIONS):  # in portions: of 10,000 questions each is 80 MB
        hits += int((np.abs(dice.choice((-1.0, 1.0), size=(FLIPS // PORTIONS, len(sizes))) @ sizes) >= reached).sum())
    return (hits + 1) / (FLIPS + 1)


def holm(values: Sequence[float] | NDArray[np.float64]) -> list[float]:
    """p-values corrected for their number (Holm 1979): below α, at most a share α of families has a false finding."""
    raw, count = np.asarray(values, dtype=np.float64), len(values)
    order = np.argsort(raw, kind="stable")
    adjusted = np.empty(count)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, np.arange(count, 0, -1) * raw[order]))
    return adjusted.tolist()


NEARLY_EQUAL = 1e-6
"""Share of the variances of two trials below which that of their difference may be lost in rounding."""
NEAR_BOUND = 1e-6
"""Relative distance from ALPHA at which a corrected p-value is computed pair by pair."""


AT_ONCE = 32
"""Trials whose draws are in memory at a time: 256 KB, which a processor's cache holds."""


def p_values_of(
    values: Sequence[float], draws: Sequence[NDArray[np.float64]], ones: Sequence[int]
) -> NDArray[np.float64]:
    """Those of `estimate` for the differences of all trials from each at the places `ones`, (ones, trials), of one seed each.

    The variance of a difference follows from products of `draws` ((samples,) each). NaN where only rounding would be left of it.
    """
    from scipy.special import ndtr

    chosen, freedom = _centred([draws[place] for place in ones]), len(draws[0]) - 1
    own, means = np.einsum("ij,ij->i", chosen, chosen) / freedom, np.asarray(values, dtype=np.float64)
    p_values = np.empty((len(ones), len(draws)))
    for start in range(0, len(draws), AT_ONCE):
        chunk, columns = _centred(draws[start : start + AT_ONCE]), slice(start, start + AT_ONCE)
        sums = own[:, None] + np.einsum("ij,ij->i", chunk, chunk) / freedom
        variances = sums - 2 * (chosen @ chunk.T) / freedom
        variances[variances <= NEARLY_EQUAL * sums] = np.nan
        differences = np.abs(means[columns] - means[list(ones)][:, None])
        p_values[:, columns] = 2 * ndtr(-differences / np.sqrt(variances))
    return p_values


def _centred(draws: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    stacked = np.stack(list(draws))
    return stacked - stacked.mean(axis=1, keepdims=True)


def within_noise(p_values: NDArray[np.float64]) -> NDArray[np.bool_] | None:
    """Which of the rivals (rows) differ significantly in no measure (columns) after Holm's correction over all of these tests.

    None where rounding of the p-values could turn a decision.
    """
    if np.isnan(p_values).any():
        return None
    corrected = np.asarray(holm(p_values.ravel())).reshape(p_values.shape)
    if (np.abs(corrected - ALPHA) < NEAR_BOUND * ALPHA).any():
        return None
    return np.asarray(corrected.min(axis=1) >= ALPHA)
