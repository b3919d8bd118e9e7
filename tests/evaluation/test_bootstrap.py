"""Resamples made when asked for: the same numbers as all at once, from the same random numbers as NumPy's own binomial."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from lmmcl.evaluation import bootstrap
from lmmcl.evaluation.bootstrap import PSEUDO, Resamples, right_by_chance


@pytest.mark.parametrize("questions", [1, 7, 200])
def test_what_is_right_by_chance_is_what_numpy_draws(questions: int) -> None:
    added = bootstrap._draw_counts("colour", questions, 1000, 3)[1]
    for checkpoint in map(str, range(60)):
        rng = np.random.default_rng([3, zlib.crc32(b"colour"), zlib.crc32(checkpoint.encode())])
        assert (right_by_chance("colour", checkpoint, questions, 1000, 3) == rng.binomial(added, 0.5)).all()


@pytest.mark.parametrize("kind", ["right or wrong", "in parts"])
def test_a_cell_is_the_mean_of_the_questions_drawn_with_the_pseudo_questions_among_them(kind: str) -> None:
    dice = np.random.default_rng(0)
    scores = {
        (stage, name): np.round(dice.random(40)) if kind == "right or wrong" else dice.random(40)
        for stage in (0, 2)
        for name in ("colour", "shape")
    }
    found = Resamples(scores, {0: "base", 2: "later"}, 200, 1)
    counts, _ = bootstrap._draw_counts("shape", 40, 200, 1)
    drawn = counts.astype(float) @ scores[2, "shape"] + right_by_chance("shape", "later", 40, 200, 1)
    assert found[2, "shape"] == pytest.approx(100 * drawn / (40 + PSEUDO), rel=1e-14)
    if kind == "right or wrong":
        assert (found[2, "shape"] == drawn * (100.0 / (40 + PSEUDO))).all()
    assert list(found) == [(2, "shape")], "what nobody asks for is not made"
    with pytest.raises(KeyError):
        found[1, "shape"]


def test_counts_of_many_questions_are_not_kept_and_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {(0, "colour"): np.round(np.random.default_rng(0).random(50))}
    kept = Resamples(scores, {0: "base"}, 100, 0)[0, "colour"]
    monkeypatch.setattr(bootstrap, "SMALL_DRAW", 10)
    assert (Resamples(scores, {0: "base"}, 100, 0)[0, "colour"] == kept).all()


@pytest.mark.parametrize("kind", ["right or wrong", "in parts", "of several kinds"])
def test_draws_of_trials_made_together_are_those_that_each_makes_alone(kind: str) -> None:
    def of(trial: int) -> Resamples:
        dice = np.random.default_rng(trial)
        scores = {}
        for stage in range(3 - trial % 2):  # a trial that has come less far has fewer stages
            for name, questions in (("h", 30), ("a", 40)):
                parts = kind == "in parts" or (kind == "of several kinds" and (trial + (name == "a")) % 2)
                drawn = dice.random(questions) if parts else dice.integers(2, size=questions)
                scores[stage, name] = np.asarray(drawn, dtype=np.float64)
        checkpoints = {stage: f"{trial}-{stage}" if stage else "base" for stage in range(3)}
        return Resamples(scores, checkpoints, 100, 1)

    together, alone = [of(trial) for trial in range(5)], [of(trial) for trial in range(5)]
    bootstrap.add_up_together(together)
    for one, other in zip(together, alone, strict=True):
        assert one._sums.keys() == {"h", "a"}, "nothing is left to be made"
        for cell in one._scores:
            assert (one[cell] == other[cell]).all()
        assert [one.is_binary(name) for name in ("h", "a")] == [other.is_binary(name) for name in ("h", "a")]
