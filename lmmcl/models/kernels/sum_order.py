"""MKL's products of fp32 matrices, computed by oneDNN to the same bits.

On processors that are not Intel's, MKL leaves the widest vectors unused and oneDNN does not: the same product takes half the time.
Both add up the terms of an entry one after another, with a rounding each; MKL in stretches of at most 192 terms whose sums it adds
in their order, however many rows and columns there are. In the same stretches oneDNN rounds alike. Which it is, is tried here for
each size of a weight before it is relied on.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

from lmmcl.private_api.torch_private import onednn_linear

if TYPE_CHECKING:
    from torch import Tensor

STRETCH = 192
"""Terms that MKL adds up at a time."""
SMALL_WEIGHT = 2**14
"""The gradient of a weight of fewer entries is left to MKL, which is as fast there."""
ROWS = (64, 65, 200, 390, 577, 640)
"""Numbers of rows that are tried."""


@cache
def stretches(terms: int) -> list[tuple[int, int]] | None:
    """Where the sums begin and end that MKL makes of `terms` products; None where that is not known."""
    if STRETCH < terms < 2 * STRETCH:
        return None if terms % 2 else [(0, terms // 2), (terms // 2, terms)]
    return [(begin, min(begin + STRETCH, terms)) for begin in range(0, terms, STRETCH)]


def row_products(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(rows, inputs) times (outputs, inputs) transposed, plus (outputs,); `weight` is contiguous, or the transpose of what is.

    Raises ValueError for a number of inputs whose order of summation is not known.
    """
    if (parts := stretches(rows.shape[1])) is None:
        raise ValueError(f"in which order MKL adds up {rows.shape[1]} products is not known")
    if len(parts) == 1:
        return onednn_linear(rows, weight, bias)
    transposed = weight.stride(0) == 1
    total: Tensor | None = None
    for begin, end in parts:
        part = weight[:, begin:end]
        product = onednn_linear(rows[:, begin:end], part if transposed else part.contiguous(), bias)
        total, bias = product if total is None else total.add_(product), None
    assert total is not None
    return total


def weight_gradient(grad: Tensor, rows: Tensor) -> Tensor:
    """(rows, outputs) transposed times (rows, inputs): (outputs, inputs)."""
    parts = stretches(len(rows))
    if parts is None or grad.shape[1] * rows.shape[1] < SMALL_WEIGHT:
        return grad.t().mm(rows)
    if grad.shape[1] > rows.shape[1]:  # oneDNN is faster with the wider one behind
        return weight_gradient(rows, grad).t()
    total: Tensor | None = None
    for begin, end in parts:
        first, second = grad[begin:end].t(), rows[begin:end]
        product = onednn_linear(first, second.t()) if end - begin == STRETCH else first.mm(second)
        total = product if total is None else total.add_(product)
    assert total is not None
    return total


def padded_gradient(grad: Tensor, rows: Tensor, before: int) -> Tensor:
    """`weight_gradient` of (batch, positions, …) with `before` positions of zeros ahead of these."""
    from torch.nn.functional import pad

    wide = (0, 0, before, 0)
    return pad(grad, wide).flatten(0, 1).t().mm(pad(rows, wide).flatten(0, 1))


def last_rows_gradient(grad: Tensor, rows: Tensor, before: int) -> Tensor:
    """As `padded_gradient`, with the zeros left out: they change no sum, but the stretches are those of all positions."""
    batch, count, _ = rows.shape
    length = before + count
    if (parts := stretches(batch * length)) is None:
        return padded_gradient(grad, rows, before)
    flat_grad, flat_rows = grad.flatten(0, 1), rows.flatten(0, 1)
    ahead = [
        at // length * count + max(at % length - before, 0) for at in (*(begin for begin, _ in parts), batch * length)
    ]
    sums = [flat_grad[one:other].t().mm(flat_rows[one:other]) for one, other in pairwise(ahead) if one < other]
    total = sums[0]
    for part in sums[1:]:
        total.add_(part)
    return total


@cache
def has_mkl_order(outputs: int, inputs: int, threads: int) -> bool:
    """Whether products with a weight of this size, and its gradients, have MKL's bits in a trial, with this number of threads."""
    return stretches(inputs) is not None and stretches(outputs) is not None and all(_trials(outputs, inputs))


def _trials(outputs: int, inputs: int) -> Iterator[bool]:
    import torch

    draw = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(outputs, inputs, generator=draw), torch.randn(outputs, generator=draw)
    for count in ROWS:
        rows, grad = (torch.randn(count, width, generator=draw) for width in (inputs, outputs))
        yield torch.equal(torch.addmm(bias, rows, weight.t()), row_products(rows, weight, bias))
        yield torch.equal(rows.mm(weight.t()), row_products(rows, weight))
        yield torch.equal(grad.mm(weight), row_products(grad, weight.t()))
        yield torch.equal(grad.t().mm(rows), weight_gradient(grad, rows))
    rows, grad = (torch.randn(16, 50, width, generator=draw) for width in (inputs, outputs))
    for count in (1, 3, 9):
        for whole in (rows, grad):
            whole[:, : 50 - count] = 0
        last = last_rows_gradient(grad[:, 50 - count :], rows[:, 50 - count :], 50 - count)
        yield torch.equal(grad.flatten(0, 1).t().mm(rows.flatten(0, 1)), last)
