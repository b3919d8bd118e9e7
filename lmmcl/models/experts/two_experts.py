"""MLPs of two experts: the frozen original, and a copy that trains, mixed for each token by a linear router.

The mitigation "MoE" of LMM-CL (arXiv 2510.08564). All that the model had keeps its name, and with it its role; what is added to
the MLP at `m` is called `m.tuned.…` (roles `llm.blocks.N.expert.…`) and `m.router.weight` (role `llm.blocks.N.router`).
In training both experts are weighted by the softmax of the router; in evaluation the likelier one answers alone. The router starts
at zero, so that a grown model is, to the bit, the one that it was. Both experts are computed for each token, in evaluation too.
"""

from __future__ import annotations

import copy
import posixpath
from collections.abc import Collection, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from lmmcl.models.experts.expert_roles import ROUTER, expert_role, router_role

if TYPE_CHECKING:
    from torch import Tensor

TUNED = "tuned"


def add_expert(model: Any, name: str) -> None:
    """Give the MLP called `name` a second expert, in place; one that has it is left as it is."""
    mlp = model.get_submodule(name)
    if not isinstance(mlp, _two_experts()):
        above, _, last = name.rpartition(".")
        setattr(model.get_submodule(above), last, _two_experts()(mlp))


def is_grown(module: Any) -> bool:
    """Whether it is an MLP of two experts."""
    return isinstance(module, _two_experts())


def mlp_modules(roles: Mapping[str, str], chosen: Collection[str]) -> list[str]:
    """The modules whose parameters are those of `chosen` with roles `llm.blocks.N.mlp.…`, in the order of the blocks."""
    names: dict[int, list[str]] = {}
    for name in chosen:
        names.setdefault(int(roles[name].split(".")[2]), []).append(name.replace(".", "/"))
    return [posixpath.commonpath(paths).replace("/", ".") for _, paths in sorted(names.items())]


def added_roles(module: str, names: Collection[str], roles: Mapping[str, str]) -> dict[str, str]:
    """Roles of those of `names` that were added to the MLP `module`; `roles` are those of what it had."""
    added = {}
    for name in names:
        rest = name.removeprefix(f"{module}.")
        if name.startswith(f"{module}.{TUNED}."):
            added[name] = expert_role(roles[f"{module}.{rest.removeprefix(f'{TUNED}.')}"])
        elif name.startswith(f"{module}.{ROUTER}."):
            added[name] = router_role(next(role for other, role in roles.items() if other.startswith(f"{module}.")))
    return added


@cache
def _two_experts() -> Any:
    """The class, made when torch is there."""
    import torch
    from torch import nn

    class TwoExperts(nn.Module):
        """Maps (…, hidden) to (…, hidden) like the MLP that it takes the place of."""

        def __init__(self, mlp: Any) -> None:
            super().__init__()
            for name, child in mlp.named_children():
                self.add_module(name, child)
            self.add_module(TUNED, copy.deepcopy(mlp))
            linears = [child for child in mlp.children() if type(child) is nn.Linear]
            weight = linears[0].weight
            self.router = nn.Linear(linears[0].in_features, 2, bias=False, device=weight.device, dtype=weight.dtype)
            nn.init.zeros_(self.router.weight)
            self.__dict__["frozen"] = mlp  # not registered: its tensors are, as the children that they were
            self.train(mlp.training)

        def forward(self, hidden: Tensor) -> Tensor:
            first, second = self.frozen(hidden), self.tuned(hidden)  # type: ignore[operator]
            scores = self.router(hidden).float()
            if self.training:
                share = scores.softmax(dim=-1)[..., 1:].to(first.dtype)
                return first + share * (second - first)
            return torch.where(scores[..., 1:] > scores[..., :1], second, first)

    return TwoExperts
