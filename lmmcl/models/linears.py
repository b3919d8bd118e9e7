"""Shapes of a model's linear layers by role: what an adapter needs to be counted, and refused, without weights.

They ship in `data/linears.json`, block numbers folded; `python -m lmmcl.maintenance.layer_shapes` recomputes them (on torch's
meta device, without memory). For other models they follow from the configuration, which then needs torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from lmmcl.errors import UserError
from lmmcl.models.lmm import LMM
from lmmcl.models.roles import summary

SHIPPED = Path(__file__).parent / "data" / "linears.json"

Shapes = Mapping[str, list[tuple[int, int]]]
"""Role → (outputs, inputs) of each linear layer's weight, in the model's order."""


@cache
def linear_shapes(lmm: LMM) -> Shapes:
    """The shapes of `lmm`, for each of its roles that has linear layers. Raises UserError for a model that has no configuration."""
    lmm = lmm.plain
    folded = _shipped().get(lmm.name)
    if folded is None:
        return shapes_of(lmm, meta_of(lmm))
    by_role = {role: folded.get(role) or folded.get(summary([role])[0]) for role in lmm.role_counts()}
    return {role: [(rows, columns) for rows, columns in shapes] for role, shapes in by_role.items() if shapes}


@cache
def _shipped() -> dict[str, dict[str, list[list[int]]]]:
    return json.loads(SHIPPED.read_text(encoding="utf-8"))


def meta_of(lmm: LMM) -> Any:
    """The parts of a model by name, with parameters that have no values. Raises UserError for a model without configuration."""
    from lmmcl.models.inventory import meta_model, shipped, ships
    from lmmcl.models.pretrained import PretrainedLMM
    from lmmcl.models.tiny.tiny import TinyLMM
    from lmmcl.models.tiny.tiny_config import configuration

    lmm = lmm.plain
    if isinstance(lmm, TinyLMM):
        return meta_model(configuration(lmm.style))
    if ships(lmm.name):
        return meta_model(shipped(lmm.name)["config"])
    if not isinstance(lmm, PretrainedLMM):
        raise UserError(
            "does not list the shapes of its linear layers, which an adapter needs", file=f"model {lmm.name}"
        )
    from transformers import AutoConfig

    return meta_model(AutoConfig.from_pretrained(**lmm.source()))


def linear_modules(model: Any) -> dict[str, Any]:
    """The linear layers of a loaded model by the name of their weight. A head that shares its weight with an embedding is none."""
    from torch import nn

    modules = dict(model.named_modules())
    linears = {}
    for name, _ in model.named_parameters():  # tied weights come once, under the name of the first
        module = modules[name.rpartition(".")[0]]
        if name.endswith(".weight") and type(module) is nn.Linear:  # subclasses have a forward of their own
            linears[name] = module
    return linears


def shapes_of(lmm: LMM, model: Any) -> Shapes:
    """The shapes of a loaded (or meta) model."""
    roles = lmm.roles_of(name for name, _ in model.named_parameters())
    shapes: dict[str, list[tuple[int, int]]] = {}
    for name, module in linear_modules(model).items():
        shapes.setdefault(roles[name], []).append((module.out_features, module.in_features))
    return shapes


def fold(shapes: Shapes) -> dict[str, list[tuple[int, int]]]:
    """Block numbers folded into `*` where all blocks are alike; else as they are."""
    groups: dict[str, list[str]] = {}
    for role in shapes:
        groups.setdefault(summary([role])[0], []).append(role)
    folded: dict[str, list[tuple[int, int]]] = {}
    for name, roles in groups.items():
        alike = all(shapes[role] == shapes[roles[0]] for role in roles)
        folded |= {name: shapes[roles[0]]} if alike else {role: shapes[role] for role in roles}
    return folded
