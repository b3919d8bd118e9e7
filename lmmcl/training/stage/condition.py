"""Condition numbers of linear layers: which of them KappaTune adapts."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lmmcl.weights.quantized_base import effective_weight

SMALLEST = 1e-8
"""Added to the smallest singular value, as PEFT's selector does: a layer of lower rank has a large κ, not an infinite one."""


def condition_number(weight: Tensor) -> float:
    """κ = σ_max / σ_min of a weight (outputs, inputs), in fp32."""
    values = torch.linalg.svdvals(weight.detach().float())
    return float(values[0] / (values[-1] + SMALLEST))


def best_conditioned(layers: Mapping[str, nn.Module], number: int) -> dict[str, nn.Module]:
    """The `number` layers with the smallest κ of their weights, in the order given; of equal ones the first."""
    kappas = {name: condition_number(effective_weight(module, torch.float32)) for name, module in layers.items()}
    best = set(sorted(layers, key=lambda name: kappas[name])[:number])
    return {name: module for name, module in layers.items() if name in best}
