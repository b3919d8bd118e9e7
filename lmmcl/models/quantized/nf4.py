"""Linear layers in NF4: quantised by bitsandbytes, the same bits on every machine, and never changed afterwards.

A layer is quantised on the CPU, of its weight in bf16 whatever the precision of the model: so its codes and scales do not depend
on the device or on the precision of a stage or an evaluation. Adapters of earlier stages cannot be merged into it without
quantising again, so they stay beside it: y = x·W₄ᵀ + x·Aᵀ·Bᵀ with the A of all of them below each other and their s·B side by side.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from lmmcl.models.quantized.base_settings import BLOCK, OUTER_BLOCK, BaseSettings, check_package

if TYPE_CHECKING:
    from torch import Tensor

EARLIER_A, EARLIER_B = "earlier_a", "earlier_b"
"""Parameters of a layer: the adapters of earlier stages, with no rows (columns) before there are any."""


def library() -> Any:
    """bitsandbytes; raises UserError when it is not installed."""
    check_package("quantize: nf4")
    import bitsandbytes

    return bitsandbytes


@cache
def _nf4_linear() -> Any:
    """The class, made when bitsandbytes is there."""
    import torch
    from torch import nn

    library()
    from bitsandbytes.nn import Linear4bit

    class Product(torch.autograd.Function):
        """x·Wᵀ and the bias of a frozen layer; its weight is dequantised for the product, and again for the gradient of x."""

        @staticmethod
        def forward(ctx: Any, x: Tensor, layer: Any) -> Tensor:
            ctx.layer = layer
            return nn.functional.linear(x, dequantize(layer, x.dtype), layer.bias)

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Any:
            return gradients[0] @ dequantize(ctx.layer, gradients[0].dtype), None

    product: Any = Product

    class NF4Linear(Linear4bit):
        """A frozen linear layer in NF4 with the adapters of earlier stages beside it; computes in the precision that it had."""

        is_nf4 = True
        earlier_a: Tensor
        earlier_b: Tensor

        def __init__(self, linear: Any, double_quant: bool) -> None:
            dtype = linear.weight.dtype
            super().__init__(
                linear.in_features,
                linear.out_features,
                bias=False,
                compute_dtype=dtype,
                compress_statistics=double_quant,
                quant_type="nf4",
                device="meta",
            )
            self.weight = quantize(linear.weight.data, double_quant, dtype)
            self.bias = linear.bias
            for name, shape in ((EARLIER_A, (0, self.in_features)), (EARLIER_B, (self.out_features, 0))):
                empty = torch.empty(shape, dtype=torch.float32, device=linear.weight.device)
                self.register_parameter(name, nn.Parameter(empty, requires_grad=False))
            self.train(linear.training)

        def forward(self, x: Tensor) -> Tensor:
            # On CPUs with AVX-512, bitsandbytes' own forward repacks the weight in place in evaluation, with scales in bf16 and
            # without a gradient from then on, and dequantises rows of other lengths than whole blocks wrongly.
            on_cpu = x.device.type == "cpu"
            result = product.apply(x.to(self.compute_dtype), self).to(x.dtype) if on_cpu else super().forward(x)
            if not self.earlier_a.shape[0]:
                return result
            low = nn.functional.linear(x.to(self.earlier_a.dtype), self.earlier_a)
            return result + nn.functional.linear(low, self.earlier_b).to(result.dtype)

    return NF4Linear


def quantize(weight: Tensor, double_quant: bool, dtype: Any) -> Any:
    """`weight` (outputs, inputs) as a frozen parameter of packed codes, with scales, that computes in `dtype`. On the CPU alone."""
    import torch

    functional = library().functional
    from bitsandbytes.nn import Params4bit

    # Through `dtype`, because backward computes with the dtype that was quantised: forward and backward then agree.
    values = weight.to("cpu", torch.bfloat16).to(dtype)
    packed, state = functional.quantize_4bit(values, blocksize=BLOCK, compress_statistics=False, quant_type="nf4")
    if double_quant:
        state.offset = _mean(state.absmax)
        state.absmax, state.state2 = functional.quantize_blockwise(state.absmax - state.offset, blocksize=OUTER_BLOCK)
        state.nested = True
    return Params4bit(
        packed,
        requires_grad=False,
        quant_state=state,
        blocksize=BLOCK,
        compress_statistics=double_quant,
        quant_type="nf4",
        bnb_quantized=True,
    )


def _mean(values: Tensor) -> Tensor:
    """The mean in fp32 of a vector, summed in fp64 by halves: `mean` is summed in an order that depends on the machine."""
    import torch

    folded = values.double()
    while (size := folded.numel()) > 1:
        half = size // 2
        rest = folded[2 * half :]
        folded = torch.cat([folded[:half] + folded[half : 2 * half], rest])
    return (folded[0] / values.numel()).float()


def quantize_layers(model: Any, layers: Mapping[str, Any], settings: BaseSettings) -> None:
    """Put an NF4 layer in the place of each of `layers` (linear modules of `model` by the names of their weights)."""
    kind = _nf4_linear()
    for name, linear in layers.items():
        above, _, last = name.removesuffix(".weight").rpartition(".")
        setattr(model.get_submodule(above), last, kind(linear, settings.double_quant))


def nf4_layers(model: Any) -> dict[str, Any]:
    """The NF4 layers of a model by the names of their weights."""
    return {f"{name}.weight": module for name, module in model.named_modules() if getattr(module, "is_nf4", False)}


def earlier_names(weight: str) -> tuple[str, str]:
    """The names of the parameters that hold the earlier adapters of the layer whose weight is called so."""
    module = weight.removesuffix("weight")
    return module + EARLIER_A, module + EARLIER_B


def scale_tensors(model: Any) -> dict[str, Tensor]:
    """The scales of all NF4 layers by name: what a quantised weight is besides its codes, and no parameter or buffer holds."""
    tensors: dict[str, Tensor] = {}
    for name, layer in nf4_layers(model).items():
        state = layer.weight.quant_state
        tensors[f"{name}.absmax"] = state.absmax
        if state.nested:
            tensors |= {f"{name}.nested_absmax": state.state2.absmax, f"{name}.offset": state.offset}
    return tensors


def quantized_storage(model: Any) -> dict[str, Tensor]:
    """Codes and scales of all NF4 layers by name."""
    return {**{name: layer.weight.data for name, layer in nf4_layers(model).items()}, **scale_tensors(model)}


def dequantize(layer: Any, dtype: Any = None) -> Tensor:
    """The weight of an NF4 layer (outputs, inputs) in `dtype` (default fp32), without the adapters beside it."""
    import torch

    packed, state = layer.weight.data, copy.copy(layer.weight.quant_state)
    # As one row: bitsandbytes mistakes the blocks of shorter ones on some CPUs (see `forward` above).
    state.shape, state.dtype = torch.Size((1, 2 * packed.numel())), dtype or torch.float32
    flat: Tensor = library().functional.dequantize_4bit(packed, state)
    return flat.reshape(-1)[: layer.out_features * layer.in_features].reshape(layer.out_features, layer.in_features)


def add_beside(layer: Any, a: Tensor, b: Tensor, scale: float) -> None:
    """Let an NF4 layer add s·B·A to what it computes, from now on; A (rank, inputs) and B (outputs, rank) are in fp32 then."""
    import torch
    from torch import nn

    device = layer.earlier_a.device
    below = torch.cat([layer.earlier_a.data, a.detach().to(device).float()])
    beside = torch.cat([layer.earlier_b.data, scale * b.detach().to(device).float()], dim=1)
    layer.earlier_a = nn.Parameter(below, requires_grad=False)
    layer.earlier_b = nn.Parameter(beside.contiguous(), requires_grad=False)


def set_beside(layers: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> list[str]:
    """Give NF4 layers (by the names of their weights) the earlier adapters that are among `tensors`; returns those names."""
    from torch import nn

    names = [name for weight in layers for name in earlier_names(weight) if name in tensors]
    for name in names:
        module, _, parameter = name.rpartition(".")
        layer = layers[f"{module}.weight"]
        setattr(layer, parameter, nn.Parameter(tensors[name], requires_grad=False))
    return names


def copy_beside(source: Any, layer: Any) -> None:
    """Give an NF4 layer the earlier adapters of another one of the same shape."""
    from torch import nn

    for name in (EARLIER_A, EARLIER_B):
        value = getattr(source, name).data.detach().to(layer.earlier_a.device, copy=True)
        setattr(layer, name, nn.Parameter(value, requires_grad=False))


def replace_by_linear(model: Any, weights: Mapping[str, Tensor]) -> None:
    """Put a plain linear layer in the place of each NF4 layer in `weights` (values by the names of weights), in place."""
    from torch import nn

    for name, layer in nf4_layers(model).items():
        if name not in weights:
            continue
        linear = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
        linear.weight = nn.Parameter(weights[name], requires_grad=False)
        linear.bias = layer.bias
        above, _, last = name.removesuffix(".weight").rpartition(".")
        setattr(model.get_submodule(above), last, linear.train(layer.training))


def count_parameters(model: Any, names: Collection[str] | None = None) -> int:
    """The pre-trained model's number of parameters (of `names` alone, where given), quantised ones counted as they were before."""
    layers = nf4_layers(model)
    beside = {name for weight in layers for name in earlier_names(weight)}
    return sum(
        layers[name].in_features * layers[name].out_features if name in layers else parameter.numel()
        for name, parameter in model.named_parameters()
        if name not in beside and (names is None or name in names)
    )
