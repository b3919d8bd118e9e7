"""Intervals as numbers alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lmmcl.evaluation.intervals import percentiles, quantiles


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 1200),
    whole=st.booleans(),
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=3),
)
def test_quantiles_are_those_of_numpy_to_the_last_bit(seed: int, count: int, whole: bool, shares: list[float]) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 9, (3, count)).astype(float) if whole else rng.normal(size=(3, count)) * 1e3
    assert np.array_equal(quantiles(rows, shares), np.quantile(rows, shares, axis=1))


def test_the_interval_of_a_distribution_leaves_as_much_on_each_side() -> None:
    draws = {"a": np.arange(1001.0), "b": np.zeros(1001)}
    low, high = percentiles(draws, 0.9)["a"]
    assert abs(low - 50) < 1e-9 and abs(high - 950) < 1e-9
    assert percentiles(draws, 0.9)["b"] == (0.0, 0.0)
