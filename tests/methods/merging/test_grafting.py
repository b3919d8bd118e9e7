"""Grafting keeps the entries that moved most, to the bit, and puts the others back."""

from __future__ import annotations

import numpy as np
import pytest
from merged import made_arrays, merged

from lmmcl.errors import UserError
from lmmcl.methods import get_mitigation


def strongest(moves: np.ndarray, keep: float) -> np.ndarray:
    """A mask over a flat vector of moves."""
    mask = np.zeros(moves.size, dtype=bool)
    mask[np.argsort(-np.abs(moves), kind="stable")[: int(keep * moves.size + 1e-9)]] = True
    return mask


@pytest.mark.parametrize("keep", [0.05, 0.4, 1.0])
def test_over_the_whole_model_the_strongest_entries_are_the_fine_tunes_to_the_bit(keep: float) -> None:
    anchor, [tuned] = made_arrays(1)
    names = sorted(anchor)
    before, after = (np.concatenate([arrays[name].ravel() for name in names]) for arrays in (anchor, tuned))
    result = merged({"grafting": {"keep": keep}}, anchor, [tuned])
    expected = np.where(strongest(after.astype(np.float64) - before, keep), after, before)
    np.testing.assert_array_equal(np.concatenate([result[name].ravel() for name in names]), expected)


def test_with_the_scope_of_a_tensor_each_has_its_share() -> None:
    anchor, [tuned] = made_arrays(1)
    result = merged({"grafting": {"keep": 0.3, "scope": "tensor"}}, anchor, [tuned])
    for name, value in result.items():
        mask = strongest((tuned[name].astype(np.float64) - anchor[name]).ravel(), 0.3).reshape(value.shape)
        np.testing.assert_array_equal(value, np.where(mask, tuned[name], anchor[name]))


def test_where_grafts_of_two_skills_meet_their_mean_is_taken() -> None:
    anchor, tuned = made_arrays(2)
    result = merged({"grafting": {"keep": 0.5, "scope": "tensor"}}, anchor, tuned)
    for name, value in result.items():
        masks = [
            strongest((t[name].astype(np.float64) - anchor[name]).ravel(), 0.5).reshape(value.shape) for t in tuned
        ]
        moves = sum(m * (t[name].astype(np.float64) - anchor[name]) for m, t in zip(masks, tuned, strict=True))
        expected = anchor[name] + moves / np.maximum(1, sum(m.astype(int) for m in masks))
        np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("settings", [{"keep": 0}, {"keep": 1.01}, {"scope": "rows"}])
def test_settings_that_cannot_be_are_refused(settings: dict) -> None:
    with pytest.raises(UserError, match=rf"grafting\.{next(iter(settings))}"):
        get_mitigation({"grafting": settings})
