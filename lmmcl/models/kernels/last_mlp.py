"""The MLP of a language model's last block, computed at the positions alone whose logits are needed.

What follows it (residual, norm, head) treats each position by itself, so what it gives elsewhere reaches no logit, and no gradient
comes back from there. On most CPUs, with one thread and in fp32, a row of a matrix product has the same bits whether it is one of
eight or of hundreds; where a trial shows otherwise, all is computed. A sum over positions has not, so gradients of weights are
summed as over all positions, with zeros for the others: what is answered and learnt is the same to the bit. Of three
blocks it saves a fifth of the arithmetic, of thirty a fiftieth.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from lmmcl.models.kernels.onednn_linear import is_exact
from lmmcl.models.kernels.sum_order import last_rows_gradient, padded_gradient

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

BLOCKS = (
    "LlamaDecoderLayer",
    "MistralDecoderLayer",
    "Qwen2DecoderLayer",
    "Qwen2_5_VLDecoderLayer",
    "Qwen3DecoderLayer",
)
"""Classes of blocks that end with the residual of an MLP, after which come the norm and the head."""
FEW_ROWS = 8
"""Products of fewer rows are left to other kernels."""
MANY_ROWS = 640
"""Of an update or a batch of questions."""
LINEARS = ("gate_proj", "up_proj", "down_proj")


def last_mlp(model: Any) -> Module | None:
    """The MLP of the last block, where it can be computed in part: in fp32 on a CPU, of a known class, with plain layers."""
    import torch
    from torch import nn

    language = getattr(getattr(model, "model", None), "language_model", None)
    layers = getattr(language, "layers", None)
    if not layers or not hasattr(language, "norm") or type(layers[-1]).__name__ not in BLOCKS:
        return None
    mlp = layers[-1].mlp
    parts = [getattr(mlp, name, None) for name in LINEARS]
    plain = all(type(part) is nn.Linear and part.bias is None for part in parts) and hasattr(mlp, "act_fn")
    children = len(list(mlp.children()))
    if not plain or children != len(LINEARS) + isinstance(mlp.act_fn, nn.Module):
        return None
    on_cpu = all(p.device.type == "cpu" and p.dtype == torch.float32 for p in mlp.parameters())
    inner, width = mlp.gate_proj.weight.shape
    return mlp if on_cpu and rows_round_alike(inner, width, torch.get_num_threads()) else None


@cache
def rows_round_alike(inner: int, width: int, threads: int) -> bool:
    """Whether some rows of products of an MLP's sizes have the bits that they have among more rows, here and with this number of
    threads: libraries choose a kernel by the number of rows, and several threads divide them otherwise."""
    import torch

    if threads > 1:
        return False
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(inner, width, generator=draw)
    for matrix in (weight, weight.T):  # forwards, and back to what came in
        rows = torch.randn(MANY_ROWS, matrix.shape[0], generator=draw)
        whole = rows @ matrix
        if not all(torch.equal(rows[-few:] @ matrix, whole[-few:]) for few in (FEW_ROWS, 9, 12, 17, 64, 200)):
            return False
    return True


@contextmanager
def at_last_positions(mlp: Module | None, count: int | None) -> Iterator[None]:
    """Inside the `with`, the MLP gives zeros before the last `count` positions; all of it (None) where somebody watches it."""
    if mlp is None or count is None or _is_watched(mlp):
        yield
        return
    mlp.forward = partial(_forward, mlp, mlp.forward, count)
    try:
        yield
    finally:
        del mlp.forward  # of the class again


def _is_watched(mlp: Module) -> bool:
    """Whether there are hooks on what would be computed in part, or the MLP is another's already."""
    return "forward" in vars(mlp) or any(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
        for module in mlp.modules()
    )


def _forward(mlp: Any, whole: Any, count: int, hidden: Tensor) -> Tensor:
    """The MLP of `hidden` (batch, positions, width), right at the last `count` positions and zero before them."""
    import torch
    from torch.nn.functional import pad

    before = hidden.shape[1] - count
    # The Trainer begins autocast inside the model's forward, so it is looked for here.
    halves = hidden.dtype != torch.float32 or torch.is_autocast_enabled("cpu")
    if before <= 0 or hidden.shape[0] * count < FEW_ROWS or halves:
        return whole(hidden)
    rows = hidden[:, before:].contiguous()
    if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in mlp.parameters()):
        gate, up = (_linear(rows, getattr(mlp, name).weight, before) for name in LINEARS[:2])
        result = _linear(mlp.act_fn(gate) * up, mlp.down_proj.weight, before)
    else:
        result = whole(rows)
    return pad(result, (0, 0, before, 0))


def _linear(rows: Tensor, weight: Tensor, before: int) -> Tensor:
    from torch.nn.functional import linear

    return _rows_linear().apply(rows, weight, before) if weight.requires_grad else linear(rows, weight)


_ROWS_LINEAR: list[Any] = []


def _rows_linear() -> Any:
    """The autograd function, made when torch is there."""
    if not _ROWS_LINEAR:
        _ROWS_LINEAR.append(_make())
    return _ROWS_LINEAR[0]


def _make() -> Any:
    import torch
    from torch.nn.functional import linear

    class RowsLinear(torch.autograd.Function):
        """A linear layer of the last rows, whose weight's gradient is summed as if the `before` rows ahead of them were zero."""

        @staticmethod
        def forward(ctx: Any, rows: Tensor, weight: Tensor, before: int) -> Tensor:
            ctx.save_for_backward(rows, weight)
            ctx.before = before
            return linear(rows, weight)

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None]:
            rows, weight = ctx.saved_tensors
            down = grad.matmul(weight) if ctx.needs_input_grad[0] else None
            gradient = last_rows_gradient if is_exact(*weight.shape) else padded_gradient
            return down, gradient(grad, rows, ctx.before), None

    return RowsLinear
