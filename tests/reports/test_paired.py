"""The statistics agree with SciPy, and find what is there about as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lmmcl.evaluation.matrix import ScoreMatrix
from lmmcl.reports.paired import estimate, holm, sign_flip_p
from lmmcl.reports.tables.compare import compare

TARGET, HELD_OUT = ["birds", "clock"], ["colour", "shape", "size", "chart"]
QUESTIONS, SWEEPS = 80, 200


def answers(dice: np.random.Generator, chance: np.ndarray) -> np.ndarray:
    return (dice.random(len(chance)) < np.clip(chance, 0, 1)).astype(float)


def test_right_and_wrong_answers_are_mcnemars_exact_test() -> None:
    dice = np.random.default_rng(1)
    differences = answers(dice, np.full(200, 0.6)) - answers(dice, np.full(200, 0.5))
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    assert sign_flip_p(differences) == pytest.approx(stats.binomtest(wins, wins + losses).pvalue, rel=1e-12)


@pytest.mark.parametrize(("questions", "close"), [(10, 1e-9), (60, 0.02)])
def test_graded_answers_are_scipys_permutation_test(questions: int, close: float) -> None:
    differences = np.random.default_rng(2).normal(0.1, 0.3, questions)
    expected = stats.permutation_test((differences,), np.sum, permutation_type="samples", n_resamples=20_000, rng=0)
    assert sign_flip_p(differences) == pytest.approx(expected.pvalue, abs=close)


def test_no_difference_at_all_is_no_finding() -> None:
    assert sign_flip_p(np.zeros(50)) == 1.0
    assert estimate([0.0], [np.zeros(100)]).p == 1.0


def test_the_interval_of_a_measure_is_that_of_scipys_paired_bootstrap() -> None:
    dice = np.random.default_rng(3)
    scores = [answers(dice, np.full(300, chance)) for chance in (0.7, 0.6)]
    matrices = []
    for after in scores:
        matrix = ScoreMatrix(["birds"])
        matrix.add(0, {"birds": np.full(300, 0.5)})
        matrix.add(1, {"birds": after})
        matrices.append(matrix)
    found = {each.name: each for each in compare(matrices[:1], matrices[1:], 5000)["measures"]}["learning"]
    expected = stats.bootstrap(
        scores,
        lambda a, b, axis=-1: 100 * (b - a).mean(axis),
        paired=True,
        n_resamples=5000,
        method="percentile",
        rng=0,
    )
    assert found.value == pytest.approx(100 * (scores[1] - scores[0]).mean())
    assert [found.low, found.high] == pytest.approx(list(expected.confidence_interval), abs=0.6)


def test_holms_correction_is_the_published_one() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def trial(dice: np.random.Generator, base: dict, hardness: dict, planted: float, seed_effect: float) -> ScoreMatrix:
    """A trial after both skills, whose held-out chances are lower by `planted` and shifted by the luck of its seed."""
    matrix = ScoreMatrix(TARGET, HELD_OUT)
    shift = seed_effect * dice.standard_normal() - planted
    matrix.add(0, base)
    for stage in (1, 2):
        matrix.add(stage, {name: answers(dice, chance) for name, chance in hardness.items() if name in TARGET})
    matrix.add(2, {name: answers(dice, chance + shift) for name, chance in hardness.items() if name in HELD_OUT})
    return matrix


def share_found(planted: float, seeds: int, seed_effect: float = 0.0) -> float:
    """In how many of 200 simulated sweeps the held-out forgetting of two trials differs significantly."""
    hits = 0
    for number in range(SWEEPS):
        dice = np.random.default_rng([number, seeds])
        hardness = {name: dice.uniform(0.2, 0.8, QUESTIONS) for name in (*TARGET, *HELD_OUT)}
        base = {name: answers(dice, chance) for name, chance in hardness.items()}  # all trials start from one model
        first = [trial(dice, base, hardness, 0.0, seed_effect) for _ in range(seeds)]
        second = [trial(dice, base, hardness, planted, seed_effect) for _ in range(seeds)]
        measures = compare(first, second, samples=300)["measures"]
        hits += next(each.significant for each in measures if each.name == "held_out_forgetting")
    return hits / SWEEPS


def test_a_null_difference_is_called_significant_about_one_time_in_twenty() -> None:
    assert 0.015 <= share_found(0.0, seeds=1) <= 0.09


def test_seeds_that_differ_by_luck_are_not_called_different_more_often() -> None:
    assert share_found(0.0, seeds=3, seed_effect=0.04) <= 0.09


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_planted_difference_is_found(seeds: int) -> None:
    assert share_found(0.15, seeds=seeds, seed_effect=0.01) >= 0.9


def test_many_differences_at_once_are_those_one_by_one() -> None:
    from lmmcl.reports.paired import estimates

    draws = np.random.default_rng(0).normal(size=(40, 200))
    draws[3] = 0.0
    draws[4] = 1.5
    values = [*draws.mean(axis=1)[:4].tolist(), 0.0, *draws.mean(axis=1)[5:].tolist()]
    assert estimates(values, draws) == [estimate([value], [draw]) for value, draw in zip(values, draws, strict=True)]
