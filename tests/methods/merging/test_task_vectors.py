"""Exact shares and exact arithmetic, whatever the dtype and however many entries are equal."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lmmcl.methods.merging.task_vectors import find_threshold, fused, how_many, moved_by, task_vector, top_mask

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_task_vector_added_back_gives_the_fine_tune_to_the_bit(dtype: torch.dtype) -> None:
    anchor, tuned = drawn(200, seed=1, dtype=dtype), drawn(200, seed=2, dtype=dtype)
    assert torch.equal(moved_by(anchor, task_vector(anchor, tuned)), tuned)


def test_where_nothing_changes_the_bits_stay() -> None:
    anchor = torch.tensor([-0.0, 0.0, 1.0])
    assert moved_by(anchor, torch.zeros(3).double()).signbit().tolist() == [True, False, False]


@pytest.mark.parametrize("share", [0.001, 0.1, 0.25, 0.5, 0.77, 1.0])
@pytest.mark.parametrize("levels", [None, 4], ids=["all different", "many equal"])
def test_a_share_of_a_whole_model_is_kept_to_the_entry(share: float, levels: int | None) -> None:
    tensors = {f"t{i}": drawn(7, 10 + i, seed=i).abs() for i in range(4)}
    if levels:
        tensors = {name: (value * levels).round() / levels for name, value in tensors.items()}
    threshold = find_threshold(tensors, tensors.__getitem__, share)
    kept = np.concatenate([tensors[name][threshold.mask(name, tensors[name])].numpy() for name in tensors])
    everything = np.sort(np.concatenate([value.numpy().ravel() for value in tensors.values()]))[::-1]
    wanted = int(share * len(everything) + 1e-9)
    assert len(kept) == wanted == how_many(share, len(everything))
    np.testing.assert_array_equal(np.sort(kept)[::-1], everything[:wanted])


def test_a_share_does_not_depend_on_the_order_of_the_tensors() -> None:
    tensors = {name: drawn(30, seed=i).mul(3).round().abs() for i, name in enumerate("bca")}
    forth = find_threshold(list(tensors), tensors.__getitem__, 0.4)
    back = find_threshold(list(tensors)[::-1], tensors.__getitem__, 0.4)
    assert forth == back


def test_of_equal_scores_the_first_are_kept() -> None:
    assert top_mask(torch.tensor([[1.0, 2.0], [1.0, 1.0]]), 2).tolist() == [[True, True], [False, False]]
    assert not top_mask(torch.ones(3), 0).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_kept_by_several_are_averaged_and_kept_by_one_are_its_own(dtype: torch.dtype) -> None:
    anchor, one, two = (drawn(6, seed=i, dtype=dtype) for i in range(3))
    masks = [torch.tensor([1, 1, 0, 0, 1, 0]).bool(), torch.tensor([1, 0, 1, 0, 1, 0]).bool()]
    result = fused(anchor, [one, two], masks)
    assert torch.equal(result[1], one[1])
    assert torch.equal(result[2], two[2])
    assert torch.equal(result[[3, 5]], anchor[[3, 5]])
    mean = (one.double() + two.double())[[0, 4]] / 2
    torch.testing.assert_close(result[[0, 4]].double(), mean, rtol=torch.finfo(dtype).eps, atol=0)
