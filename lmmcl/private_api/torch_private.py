"""Private parts of PyTorch: its own linear layer, and the product of matrices of oneDNN that it offers to its compiler alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def own_linear() -> Callable[..., Tensor]:
    """What `torch.nn.functional.linear` is where nobody has replaced it."""
    import torch

    linear: Callable[..., Tensor] = torch._C._nn.linear
    return linear


def has_onednn_linear() -> bool:
    """Whether this build of PyTorch has it."""
    import torch

    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def onednn_linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(rows, inputs) times (outputs, inputs) transposed, plus (outputs,), without a gradient.

    `weight` must be contiguous, or the transpose of what is: a part of wider rows takes a thousand times as long.
    """
    import torch

    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return product
