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
