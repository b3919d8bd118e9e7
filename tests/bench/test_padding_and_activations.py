"""The benches of padding and of activations run, and show what they are for."""

from __future__ import annotations

import padding
import recomputed_blocks


def test_sorted_rows_have_at_most_a_tenth_of_padding_and_packed_ones_none() -> None:
    (share,) = padding.measure(64, [(64, 4)])
    assert share.packed == 0 < share.sorted <= 0.1
    assert share.unsorted > 2 * share.sorted
    assert "sorted" in padding.table([share])


def test_blocks_below_what_trains_are_computed_once() -> None:
    (count,) = recomputed_blocks.measure(["sa_proj of the last block"])
    assert count.runs < count.runs_before and count.kept < count.kept_before
    assert "sa_proj" in recomputed_blocks.table([count])
