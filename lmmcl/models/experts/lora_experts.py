"""Linear layers with several LoRA adapters as experts, weighted for each token by a softmax gate.

MoELoRA as in CoIN (arXiv 2403.08350) and in its use as a baseline of MLLM-CL (arXiv 2506.05453): for an input x of a layer W,

    y = W·x + b + s · Σᵢ gᵢ(x) · Bᵢ·Aᵢ·x,   g = softmax(G·x)

All experts answer, in training and in evaluation, so their sum depends on the token and cannot be merged into W. All that the
model had keeps its name and role; what is added to the layer at `m` is called `m.experts_a` (all Aᵢ below each other),
`m.experts_b` (all Bᵢ side by side; both of role `llm.blocks.N.expert.…`) and `m.router.weight` (G, role `llm.blocks.N.router`).
A starts from a normal distribution of 0.01, B at zero and G as torch's linear layers do, as in the authors' code: a grown model
is the one that it was. What they start from depends on the seed and the layer's name alone, so that what did not move need not
be stored. The input's dropout is drawn once for all experts (there: once for each).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from lmmcl.models.experts.expert_roles import ROUTER, expert_role, router_role

if TYPE_CHECKING:
    from torch import Tensor

MARK = " + lora_experts "
"""Stands between a layer's name and its settings in an entry of a checkpoint."""
FACTORS = ("experts_a", "experts_b")
SPREAD = 0.01
"""Standard deviation of A at the start."""


@dataclass(frozen=True)
class LoRAExperts:
    """The experts of one layer: how many, the rank of each, the scale s, dropout of their input, and what they start from."""

    experts: int
    rank: int
    scale: float
    dropout: float
    seed: int

    def entry(self, layer: str) -> str:
        """How a checkpoint names a layer that has them."""
        return f"{layer}{MARK}{json.dumps(asdict(self))}"

    def is_like(self, other: LoRAExperts) -> bool:
        """Whether they differ in nothing but what they started from."""
        return asdict(self) | {"seed": 0} == asdict(other) | {"seed": 0}


def parse_entry(entry: str) -> tuple[str, LoRAExperts]:
    """The layer of an entry, and its experts."""
    layer, _, settings = entry.partition(MARK)
    return layer, LoRAExperts(**json.loads(settings))


def add_lora_experts(model: Any, entry: str) -> None:
    """Give the linear layer of `entry` its experts, in place; one that has some is left as it is."""
    name, settings = parse_entry(entry)
    layer = model.get_submodule(name)
    if not is_expert_layer(layer):
        above, _, last = name.rpartition(".")
        setattr(model.get_submodule(above), last, _expert_layer()(layer, settings, name))


def is_expert_layer(module: Any) -> bool:
    """Whether it is a linear layer with LoRA experts."""
    return isinstance(module, _expert_layer())


def expert_layers(model: Any) -> dict[str, LoRAExperts]:
    """The experts of each layer that has some, by the layer's name."""
    return {name: module.settings for name, module in model.named_modules() if is_expert_layer(module)}


def added_roles(module: str, names: Collection[str], roles: Mapping[str, str]) -> dict[str, str]:
    """Roles of those of `names` that were added to the layer `module`; `roles` are those of what it had."""
    own = roles[f"{module}.weight"]
    added = {f"{module}.{factor}": expert_role(own) for factor in FACTORS}
    added[f"{module}.{ROUTER}.weight"] = router_role(own)
    return {name: role for name, role in added.items() if name in names}


def added_names(layers: Iterable[str]) -> list[str]:
    """The names of the parameters that experts have, of several layers."""
    return [f"{layer}.{part}" for layer in layers for part in (*FACTORS, f"{ROUTER}.weight")]


def _generator(seed: int, layer: str) -> Any:
    import torch

    number = int.from_bytes(hashlib.sha256(f"{seed} {layer}".encode()).digest()[:7])
    return torch.Generator().manual_seed(number)


@cache
def _expert_layer() -> Any:
    """The class, made when torch is there."""
    import torch
    from torch import nn
    from torch.nn import functional

    class ExpertLayer(nn.Linear):
        """Maps (…, inputs) to (…, outputs) like the layer that it takes the place of, whose parameters it has."""

        def __init__(self, layer: nn.Linear, settings: LoRAExperts, name: str) -> None:
            nn.Module.__init__(self)
            self.in_features, self.out_features, self.settings = layer.in_features, layer.out_features, settings
            self.weight, self.bias = layer.weight, layer.bias
            place: dict[str, Any] = {"device": layer.weight.device, "dtype": layer.weight.dtype}
            rank, generator = settings.experts * settings.rank, _generator(settings.seed, name)
            first = torch.empty(rank, self.in_features).normal_(0.0, SPREAD, generator=generator)
            self.experts_a = nn.Parameter(first.to(**place))
            self.experts_b = nn.Parameter(torch.zeros(self.out_features, rank, **place))
            self.router = nn.Linear(self.in_features, settings.experts, bias=False, **place)
            bound = self.in_features**-0.5
            gate = torch.empty(settings.experts, self.in_features).uniform_(-bound, bound, generator=generator)
            self.router.weight = nn.Parameter(gate.to(**place))
            self.dropout = nn.Dropout(settings.dropout)
            self.train(layer.training)

        def forward(self, x: Tensor) -> Tensor:
            settings = self.settings
            share = self.router(x).float().softmax(dim=-1)
            hidden = functional.linear(self.dropout(x), self.experts_a)
            hidden = hidden.unflatten(-1, (settings.experts, settings.rank)) * share.to(hidden.dtype).unsqueeze(-1)
            added = functional.linear(hidden.flatten(-2), self.experts_b)
            return functional.linear(x, self.weight, self.bias) + settings.scale * added

    return ExpertLayer
