"""MKL's order of summation, found again with oneDNN's products; elsewhere a trial says that it is another."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from lmmcl.models.kernels import sum_order
from lmmcl.models.kernels.onednn_linear import is_worthwhile
from lmmcl.models.kernels.sum_order import (
    has_mkl_order,
    last_rows_gradient,
    padded_gradient,
    row_products,
    stretches,
    weight_gradient,
)


@pytest.fixture
def mkl_order() -> Iterator[None]:
    """One thread, on a CPU where both libraries add up in the same order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    if not is_worthwhile() or not has_mkl_order(384, 96, 1):
        pytest.skip("MKL is the faster one here, or adds up in another order")
    yield
    torch.set_num_threads(threads)


def test_sums_are_made_of_stretches_that_follow_one_another() -> None:
    assert stretches(96) == [(0, 96)]
    assert stretches(192) == [(0, 192)]
    assert stretches(200) == [(0, 100), (100, 200)]
    assert stretches(384) == [(0, 192), (192, 384)]
    assert stretches(400) == [(0, 192), (192, 384), (384, 400)]
    assert stretches(257) is None


@pytest.mark.parametrize("inputs", [96, 192, 250, 384, 400, 577, 768])
@pytest.mark.parametrize("outputs", [24, 96, 384])
@pytest.mark.parametrize("rows", [64, 448, 1041])
@pytest.mark.usefixtures("mkl_order")
def test_products_have_the_bits_of_mkl(outputs: int, inputs: int, rows: int) -> None:
    values, weight, bias = torch.randn(rows, inputs), torch.randn(outputs, inputs), torch.randn(outputs)
    grad = torch.randn(rows, outputs)
    assert torch.equal(row_products(values, weight), values.mm(weight.t()))
    assert torch.equal(row_products(values, weight, bias), torch.addmm(bias, values, weight.t()))
    assert torch.equal(row_products(grad, weight.t()), grad.mm(weight))
    assert torch.equal(weight_gradient(grad, values), grad.t().mm(values))


@pytest.mark.parametrize(("batch", "positions"), [(16, 65), (5, 77), (3, 65), (9, 29), (1, 70)])
@pytest.mark.parametrize("kept", [1, 3, 29])
@pytest.mark.usefixtures("mkl_order")
def test_zeros_ahead_of_the_last_rows_can_be_left_out_of_a_sum(batch: int, positions: int, kept: int) -> None:
    values, grad = torch.randn(batch, kept, 96), torch.randn(batch, kept, 384)
    last = last_rows_gradient(grad, values, positions - kept)
    assert torch.equal(last, padded_gradient(grad, values, positions - kept))


def test_an_order_that_is_not_known_is_an_error() -> None:
    with pytest.raises(ValueError, match="257 products is not known"):
        row_products(torch.randn(64, 257), torch.randn(96, 257))


def test_a_trial_finds_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sum_order, "onednn_linear", lambda rows, weight, bias=None: rows @ weight.t() * (1 + 2**-20))
    assert not sum_order.has_mkl_order.__wrapped__(384, 96, 1)
    assert not sum_order.has_mkl_order.__wrapped__(257, 96, 1)
