"""Exact shares and exact arithmetic, whatever the dtype and however many entries are equal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from merged import made_arrays

from lmmcl.methods.merging import thresholds
from lmmcl.methods.merging.task_vectors import (
    fused,
    how_many,
    magnitudes_of,
    moved_by,
    task_vector,
    top_mask,
)
from lmmcl.methods.merging.thresholds import Threshold, find_thresholds, top_thresholds

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def find_threshold(names: Iterable[str], tensors: Mapping[str, torch.Tensor], share: float) -> Threshold:
    """The threshold of one fine-tune whose magnitudes are these tensors."""

    def magnitudes(name: str, at: torch.Tensor | None) -> list[torch.Tensor]:
        return [tensors[name] if at is None else tensors[name].reshape(-1)[at]]

    sizes = {name: tensors[name].numel() for name in names}
    return find_thresholds(sizes, magnitudes, share)[0]


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
    threshold = find_threshold(tensors, tensors, share)
    kept = np.concatenate([tensors[name][threshold.mask(name, tensors[name])].numpy() for name in tensors])
    everything = np.sort(np.concatenate([value.numpy().ravel() for value in tensors.values()]))[::-1]
    wanted = int(share * len(everything) + 1e-9)
    assert len(kept) == wanted == how_many(share, len(everything))
    np.testing.assert_array_equal(np.sort(kept)[::-1], everything[:wanted])


def test_a_share_does_not_depend_on_the_order_of_the_tensors() -> None:
    tensors = {name: drawn(30, seed=i).mul(3).round().abs() for i, name in enumerate("bca")}
    forth = find_threshold(list(tensors), tensors, 0.4)
    back = find_threshold(list(tensors)[::-1], tensors, 0.4)
    assert forth == back


@pytest.mark.parametrize("share", [0.0001, 0.2, 0.9, 1.0])
@pytest.mark.parametrize(
    ("bound", "value"), [("SAMPLE", 64), ("MOST_KEPT", 10), ("DEVIATIONS", 0.0)], ids=["as it is", "full", "missed"]
)
def test_however_the_threshold_is_come_by_it_is_the_same(
    share: float, bound: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = {f"t{i}": drawn(3000 * (i + 1), seed=i).mul(10.0**-i).abs() for i in range(3)} | {"none": torch.zeros(0)}
    everything = torch.cat(list(tensors.values())).sort(descending=True).values
    monkeypatch.setattr(thresholds, bound, value)
    threshold = find_threshold(tensors, tensors, share)
    assert threshold.magnitude == everything[how_many(share, everything.numel()) - 1].item()
    assert sum(int(threshold.mask(name, tensor).sum()) for name, tensor in tensors.items()) == how_many(
        share, everything.numel()
    )


def test_a_share_that_is_less_than_one_entry_keeps_none() -> None:
    tensors = {"small": torch.tensor([3.0, 1.0])}
    assert not find_threshold(tensors, tensors, 0.1).mask("small", tensors["small"]).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_magnitudes_are_those_of_the_exact_task_vector_rounded_once(dtype: torch.dtype) -> None:
    anchor, tuned = drawn(4000, seed=1, dtype=dtype), drawn(4000, seed=2, dtype=dtype)
    tuned[::2] = anchor[::2] * (1 + 1e-3)
    assert torch.equal(magnitudes_of(anchor, tuned), task_vector(anchor, tuned).abs().float())


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


def test_the_threshold_of_a_merge_reads_each_tensor_twice() -> None:
    """Once for a sample, once to count: their sizes are known without."""
    anchor, tuned = made_arrays(2)
    read: list[str] = []

    def values(name: str) -> tuple[torch.Tensor, list[torch.Tensor]]:
        read.append(name)
        return torch.from_numpy(anchor[name]), [torch.from_numpy(arrays[name]) for arrays in tuned]

    sizes = {name: value.size for name, value in anchor.items()}
    context: Any = SimpleNamespace(names=list(anchor), sizes=sizes, read=values)
    assert len(top_thresholds(context, 0.4)) == 2
    assert sorted(read) == sorted(2 * list(anchor))
