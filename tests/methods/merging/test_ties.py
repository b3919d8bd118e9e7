"""TIES against the paper's algorithm 1, written again over one long vector."""

from __future__ import annotations

import numpy as np
import pytest
from merged import Arrays, made_arrays, merged

from lmmcl.errors import UserError
from lmmcl.methods import get_mitigation
from lmmcl.methods.merging import ties as module


def restated(
    anchor: np.ndarray, tuned: list[np.ndarray], keep: float, scale: float, *, as_mergekit: bool = False
) -> np.ndarray:
    """One entry after the other, over flat vectors; mergekit keeps at least one entry and calls a sum of 0 positive."""
    count = max(int(keep * anchor.size + 1e-9), int(as_mergekit))
    vectors = []
    for each in tuned:
        vector = each.astype(np.float64) - anchor
        trimmed = np.zeros_like(vector)
        strongest = np.argsort(-np.abs(vector), kind="stable")[:count]
        trimmed[strongest] = vector[strongest]
        vectors.append(trimmed)
    result = anchor.astype(np.float64)
    for i in range(anchor.size):
        entries = [vector[i] for vector in vectors]
        sign = np.sign(sum(entries)) or float(as_mergekit)
        agreeing = [entry for entry in entries if entry != 0 and np.sign(entry) == sign]
        if agreeing:
            result[i] += scale * sum(agreeing) / len(agreeing)
    return result.astype(np.float32)


def flat(arrays: Arrays) -> np.ndarray:
    return np.concatenate([arrays[name].ravel() for name in sorted(arrays)])


@pytest.mark.parametrize("keep", [0.2, 0.55, 1.0])
@pytest.mark.parametrize("skills", [1, 2, 3])
def test_over_the_whole_model_it_is_the_papers_algorithm(keep: float, skills: int) -> None:
    anchor, tuned = made_arrays(skills)
    result = merged({"ties": {"keep": keep, "scale": 0.8}}, anchor, tuned)
    np.testing.assert_allclose(flat(result), restated(flat(anchor), [flat(t) for t in tuned], keep, 0.8), rtol=1e-6)


def test_with_the_scope_of_a_tensor_each_tensor_is_trimmed_apart() -> None:
    anchor, tuned = made_arrays()
    result = merged({"ties": {"keep": 0.3, "scope": "tensor"}}, anchor, tuned)
    for name, value in result.items():
        expected = restated(anchor[name].ravel(), [t[name].ravel() for t in tuned], 0.3, 1.0, as_mergekit=True)
        np.testing.assert_allclose(value.ravel(), expected, rtol=1e-6)


def test_with_the_scope_of_a_tensor_even_sums_are_positive_and_no_tensor_is_left_out() -> None:
    anchor = {"even": np.zeros(4, np.float32), "small.bias": np.zeros(3, np.float32)}
    one = {"even": np.array([2, 0, -1, 0.5], np.float32), "small.bias": np.array([0.1, 0.3, 0.2], np.float32)}
    two = {"even": np.array([-2, 0, 1, 0.5], np.float32), "small.bias": np.array([0.1, 0.3, 0.2], np.float32)}
    by_tensor = merged({"ties": {"keep": 1.0, "scope": "tensor"}}, anchor, [one, two])
    assert by_tensor["even"].tolist() == [2, 0, 1, 0.5]
    assert merged({"ties": {"keep": 1.0}}, anchor, [one, two])["even"].tolist() == [0, 0, 0, 0.5]
    least = merged({"ties": {"keep": 0.2, "scope": "tensor"}}, anchor, [one, two])
    np.testing.assert_allclose(least["small.bias"], [0, 0.3, 0])


def test_parts_of_a_tensor_are_merged_as_the_whole_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    anchor, tuned = made_arrays()
    whole = merged({"ties": {"keep": 0.4}}, anchor, tuned)
    monkeypatch.setattr(module, "CHUNK", 7)
    for name, value in merged({"ties": {"keep": 0.4}}, anchor, tuned).items():
        np.testing.assert_array_equal(value, whole[name])


def test_only_the_scope_of_a_tensor_has_a_key_of_its_own_version() -> None:
    assert get_mitigation("ties").identity()["version"] == 1
    assert get_mitigation({"ties": {"scope": "tensor"}}).identity()["version"] == 2


def test_what_no_skill_kept_has_the_anchors_bits() -> None:
    anchor, tuned = made_arrays(2)
    result = merged({"ties": {"keep": 0.1}}, anchor, tuned)
    unchanged = (flat(result) == flat(anchor)).mean()
    assert 0.8 <= unchanged < 0.91


@pytest.mark.parametrize("settings", [{"keep": 0}, {"keep": 1.5}, {"scale": 0}, {"scope": "layer"}])
def test_settings_that_cannot_be_are_refused(settings: dict) -> None:
    with pytest.raises(UserError, match=rf"ties\.{next(iter(settings))}"):
        get_mitigation({"ties": settings})
