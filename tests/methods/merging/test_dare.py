"""DARE drops at random, but the same at each run, and scales so that the mean stays."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from merged import made_arrays, merged

from lmmcl.errors import UserError
from lmmcl.methods import get_mitigation


def restated(
    name: str, anchor: np.ndarray, tuned: list[np.ndarray], drop: float, scale: float, seed: int
) -> np.ndarray:
    result = anchor.astype(np.float64)
    for skill, each in enumerate(tuned):
        number = int(hashlib.sha256(f"{seed}/{skill}/{name}".encode()).hexdigest()[:32], 16)
        kept = np.random.Generator(np.random.PCG64(number)).random(anchor.shape, dtype=np.float32) >= drop
        result += scale * kept * (each.astype(np.float64) - anchor) / (1 - drop)
    return result.astype(np.float32)


@pytest.mark.parametrize("skills", [1, 3])
@pytest.mark.parametrize(("drop", "scale", "seed"), [(0.9, 1.0, 0), (0.5, 0.4, 7), (0.0, 1.0, 0)])
def test_it_is_the_papers_formula(skills: int, drop: float, scale: float, seed: int) -> None:
    anchor, tuned = made_arrays(skills)
    result = merged({"dare": {"drop": drop, "scale": scale, "seed": seed}}, anchor, tuned)
    for name, value in result.items():
        expected = restated(name, anchor[name], [t[name] for t in tuned], drop, scale, seed)
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)


def test_the_draw_depends_on_neither_the_order_of_tensors_nor_their_number() -> None:
    anchor, tuned = made_arrays()
    forth, back = merged("dare", anchor, tuned), merged("dare", anchor, tuned, list(anchor)[::-1])
    alone = merged("dare", anchor, tuned, ["small.bias"])
    for name in anchor:
        np.testing.assert_array_equal(forth[name], back[name])
    np.testing.assert_array_equal(alone["small.bias"], forth["small.bias"])


def test_another_seed_another_name_or_another_skill_draws_anew() -> None:
    anchor = {name: np.zeros(400, dtype=np.float32) for name in ("a", "b")}
    moved = {name: np.ones(400, dtype=np.float32) for name in anchor}
    first, second = (merged({"dare": {"seed": seed}}, anchor, [moved]) for seed in (0, 1))
    assert (first["a"] != second["a"]).any()
    assert (first["a"] != first["b"]).any()
    twice = merged("dare", anchor, [moved, moved])["a"]
    assert set(np.unique(twice.round(4))) == {0.0, 10.0, 20.0}


def test_the_share_that_stays_is_what_was_asked_and_the_mean_is_that_of_the_fine_tune() -> None:
    anchor, moved = {"a": np.zeros(200_000, dtype=np.float32)}, {"a": np.ones(200_000, dtype=np.float32)}
    result = merged({"dare": {"drop": 0.8}}, anchor, [moved])["a"]
    deviation = (0.8 * 0.2 / 200_000) ** 0.5
    assert abs((result != 0).mean() - 0.2) < 5 * deviation
    assert abs(result.mean() - 1) < 5 * deviation / 0.2


@pytest.mark.parametrize("settings", [{"drop": 1}, {"drop": -0.1}, {"scale": 0}, {"seed": -1}])
def test_settings_that_cannot_be_are_refused(settings: dict) -> None:
    with pytest.raises(UserError, match=rf"dare\.{next(iter(settings))}"):
        get_mitigation({"dare": settings})
