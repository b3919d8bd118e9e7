"""What the rules of all regions ask of a model's modules: the path to a parameter, norms, and numbered blocks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

_NORM = re.compile(r".*(?:Norm|L2Clip)(?:\d+d|Gated)?")
_BLOCK = re.compile(r".*(?:Layer|Block|Stage)")


@dataclass(frozen=True)
class Part:
    """A module on the way to a parameter: its whole name, its attribute in the module above, and its class's name."""

    name: str
    attribute: str
    module: Any

    @property
    def kind(self) -> str:
        return type(self.module).__name__


def path_to(model: Any, name: str) -> list[Part]:
    """The modules from the model to the one that owns the parameter `name`; the model itself is left out."""
    parts, module, whole = [], model, ""
    for attribute in name.split(".")[:-1]:
        module = getattr(module, attribute)
        whole = f"{whole}.{attribute}" if whole else attribute
        parts.append(Part(whole, attribute, module))
    return parts


def is_norm(module: Any) -> bool:
    """Whether its class is a normalisation."""
    return _NORM.fullmatch(type(module).__name__) is not None


@cache
def _checkpointing_layer() -> Any:
    from transformers.modeling_layers import GradientCheckpointingLayer

    return GradientCheckpointingLayer


def is_block(module: Any) -> bool:
    """Whether it is a block of a stack: transformers' blocks say so by their base class, older ones by their name."""
    return isinstance(module, _checkpointing_layer()) or _BLOCK.fullmatch(type(module).__name__) is not None


def number_blocks(model: Any, names: Iterable[str]) -> dict[str, int]:
    """Whole names of the outermost blocks over the parameters `names`, numbered in the model's order over all stacks."""
    numbers: dict[str, int] = {}
    for name in names:
        path = path_to(model, name)
        for above, part in pairwise(path):
            if part.attribute.isdigit() and _is_stack(above.module):
                numbers.setdefault(part.name, len(numbers))
                break
    return numbers


def _is_stack(module: Any) -> bool:
    """A list of blocks."""
    from torch import nn

    return isinstance(module, nn.ModuleList | nn.Sequential) and len(module) > 0 and all(map(is_block, module))


def kinds(path: Sequence[Part]) -> list[str]:
    """The class names on a path."""
    return [part.kind for part in path]


def decayed_names(model: Any) -> list[str]:
    """Names of the parameters that weight decay is for: matrices of layers, and no norms, biases, scales or single vectors.

    Told from the module that owns a parameter: vision towers call their norms `norm1` or `ln_q`, scales `lambda_1`, and a class
    token is a vector of three dimensions.
    """
    from torch import nn

    layers = (nn.Linear, nn.Embedding, nn.modules.conv._ConvNd)
    decayed = []
    for above, module in model.named_modules():
        for attribute, parameter in module.named_parameters(recurse=False):
            is_matrix = sum(length > 1 for length in parameter.shape) > 1 or isinstance(module, layers)
            if is_matrix and not is_norm(module) and not re.search(r"(?:^|_)bias$", attribute):
                decayed.append(f"{above}.{attribute}" if above else attribute)
    return decayed
