"""Linear layers computed by oneDNN where it gives the bits of MKL in less time: small ones in fp32, on a CPU that is not Intel's.

`torch.nn.functional.linear` is what all linear layers call, those of adapters too; inside `onednn_linears` it is replaced for the
whole process. Other threads of it get the same bits. What it does not take (other types, few rows, sizes for which a trial shows
other bits) is computed as before, and so is all in a region with autocast.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from lmmcl.models.kernels.sum_order import has_mkl_order, row_products, weight_gradient
from lmmcl.private_api.torch_private import has_onednn_linear, own_linear

if TYPE_CHECKING:
    from torch import Tensor

FEW_ROWS = 64
"""Fewer rows are left to MKL, which has other programs for some."""
LEAST_PRODUCTS = 2**22
"""Layers that multiply fewer numbers are as fast without."""
MOST_WIDTH = 1536
"""Of wider rows the stretches are many, and adding up their sums costs what is won."""
MOST_SHAPES = 400
"""oneDNN makes a program for every number of rows, in the time of two products, and keeps a thousand of them: what has still more
shapes is computed as before."""

_lock = Lock()
_inside = 0
_shapes: set[tuple[int, int, int]] = set()


@cache
def is_worthwhile() -> bool:
    """Whether PyTorch multiplies with MKL here, on a CPU for which MKL has no programs with the widest vectors, and has oneDNN."""
    import torch

    widest = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return torch.backends.mkl.is_available() and widest and not is_intel(Path("/proc/cpuinfo")) and has_onednn_linear()


def is_intel(description: Path) -> bool:
    """Whether the processor is Intel's, by Linux's description of it; also where there is none."""
    if platform.system() != "Linux" or not description.is_file():
        return True
    vendors = [line for line in description.read_text(errors="replace").splitlines() if line.startswith("vendor_id")]
    return not vendors or vendors[0].endswith("GenuineIntel")


def is_exact(outputs: int, inputs: int) -> bool:
    """Whether oneDNN is worth it for weights of this size, and gives MKL's bits with this process's number of threads."""
    import torch

    return (
        is_worthwhile()
        and max(outputs, inputs) <= MOST_WIDTH
        and has_mkl_order(outputs, inputs, torch.get_num_threads())
    )


@contextmanager
def onednn_linears() -> Iterator[None]:
    """Inside the `with`, linear layers are computed by oneDNN where that is worth it and changes no bit."""
    global _inside
    if not is_worthwhile():
        yield
        return
    from torch.nn import functional

    plain, ours = own_linear(), _replacement()
    with _lock:
        _inside += 1
        if _inside == 1 and functional.linear is plain:  # somebody's own is left
            functional.linear = ours
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0 and functional.linear is ours:
                functional.linear = plain


@cache
def _replacement() -> Callable[..., Tensor]:
    """What computes a linear layer inside `onednn_linears`."""
    import torch
    from torch.nn import Parameter
    from torch.overrides import has_torch_function

    plain, function = own_linear(), _autograd_function()
    product: Callable[..., Tensor] = function.forward
    kinds = (torch.Tensor, Parameter)

    def takes(rows: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
        """Tensors of other classes (sharded, quantised) have linear layers of their own, and a mode may watch PyTorch's."""
        parts = (rows, weight) if bias is None else (rows, weight, bias)
        if has_torch_function(parts) or any(
            type(part) not in kinds or part.dtype != torch.float32 or part.device.type != "cpu" for part in parts
        ):
            return False
        # Of rows that do not follow one another PyTorch makes products of a few rows each, which other programs compute.
        if not rows.is_contiguous() or rows.dim() < 2 or weight.dim() != 2 or not weight.is_contiguous():
            return False
        outputs, inputs = weight.shape
        if rows.shape[-1] != inputs or (bias is not None and bias.shape != (outputs,)):
            return False
        count = rows.numel() // inputs if inputs else 0
        if count < FEW_ROWS or count * outputs * inputs < LEAST_PRODUCTS or torch.is_autocast_enabled("cpu"):
            return False
        usual = bool(torch.backends.mkldnn.enabled) and not torch.compiler.is_compiling()
        return usual and _is_kept(count, outputs, inputs) and is_exact(outputs, inputs)

    def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if not takes(input, weight, bias):
            return plain(input, weight, bias)
        if not torch.is_grad_enabled():
            return product(input, weight, bias)
        result: Tensor = function.apply(input, weight, bias)
        return result

    return linear


def _is_kept(count: int, outputs: int, inputs: int) -> bool:
    """Whether oneDNN's programs for this shape are among the first MOST_SHAPES."""
    shape = (count, outputs, inputs)
    if shape not in _shapes and len(_shapes) < MOST_SHAPES:
        _shapes.add(shape)
    return shape in _shapes


def _autograd_function() -> Any:
    import torch

    class OnednnLinear(torch.autograd.Function):
        """A linear layer of (…, inputs) whose products and gradients are oneDNN's."""

        generate_vmap_rule = True

        @staticmethod
        def forward(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            flat = rows.reshape(-1, rows.shape[-1])
            return row_products(flat, weight, bias).view(*rows.shape[:-1], len(weight))

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
            rows, weight, _ = inputs
            for_rows, for_weight, _ = ctx.needs_input_grad
            ctx.save_for_backward(rows if for_weight else None, weight if for_rows else None)

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
            rows, weight = ctx.saved_tensors
            flat = grad.reshape(-1, grad.shape[-1])
            # Somebody may want the gradient of a gradient, which oneDNN's products do not have.
            product, gradient = (_mm, _mm_gradient) if torch.is_grad_enabled() else (row_products, weight_gradient)
            down = product(flat, weight.t()).view(*grad.shape[:-1], -1) if weight is not None else None
            total = gradient(flat, rows.reshape(-1, rows.shape[-1])) if rows is not None else None
            return down, total, flat.sum(0) if ctx.needs_input_grad[2] else None

    return OnednnLinear


def _mm(rows: Tensor, weight: Tensor) -> Tensor:
    return rows.mm(weight.t())


def _mm_gradient(grad: Tensor, rows: Tensor) -> Tensor:
    return grad.t().mm(rows)
