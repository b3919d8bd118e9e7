"""A pre-trained model with quantised weights: made when it is loaded, compared by codes and scales, dequantised for export."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lmmcl.models.experts import roles_in
from lmmcl.models.linears import linear_modules
from lmmcl.models.lmm import LMM
from lmmcl.models.quantized.nf4 import (
    dequantize,
    nf4_layers,
    quantize_layers,
    quantized_storage,
    replace_by_linear,
    scale_tensors,
)
from lmmcl.models.roles import select
from lmmcl.steps.quantized import HEAD
from lmmcl.weights.lora import LayerAdapter

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


def quantize_base(lmm: LMM, model: PreTrainedModel) -> None:
    """Quantise a loaded model (on the CPU) as the settings of `lmm` say, in place; layers that are quantised already stay."""
    base = lmm.settings.base
    if base is None:
        return
    roles = roles_in(lmm, model)
    chosen = {name for name in select(roles, base.layers, model=lmm.name) if roles[name] != HEAD}
    quantize_layers(model, {name: layer for name, layer in linear_modules(model).items() if name in chosen}, base)


def quantized_names(model: PreTrainedModel) -> list[str]:
    """The names of codes and scales of all quantised layers, as `named_tensors` has them."""
    return list(quantized_storage(model))


def describe_quantized(model: PreTrainedModel) -> dict[str, Any]:
    """For the record: how many layers and weights are quantised, and the bytes that they really take. Empty if none are."""
    layers = nf4_layers(model)
    if not layers:
        return {}
    weights = sum(layer.in_features * layer.out_features for layer in layers.values())
    size = sum(tensor.nbytes for tensor in quantized_storage(model).values())
    return {
        "quantized": {
            "layers": len(layers),
            "parameters": weights,
            "bytes": size,
            "bits_per_weight": 8 * size / weights,
        }
    }


def named_tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """Parameters and buffers by name, tied ones once; and the scales of quantised weights, which are neither."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers()), **scale_tensors(model)}


def effective_weight(layer: Any, dtype: Any) -> Tensor:
    """What a linear layer multiplies by, in `dtype`: its weight, or the dequantised one with the adapters beside it."""
    if not getattr(layer, "is_nf4", False):
        weight: Tensor = layer.weight.detach().to(dtype)
        return weight
    value = dequantize(layer)
    if layer.earlier_a.shape[0]:
        value = LayerAdapter(layer.earlier_a.data, layer.earlier_b.data, 1.0).merge(value)
    return value.to(dtype)


def dequantize_model(model: PreTrainedModel, dtype: Any) -> None:
    """Make quantised layers plain ones of their effective weights, rounded once to `dtype`, in place."""
    weights: Mapping[str, Tensor] = {name: effective_weight(layer, dtype) for name, layer in nf4_layers(model).items()}
    replace_by_linear(model, weights)
