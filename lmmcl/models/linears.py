"""Shapes of a model's linear layers by role: what an adapter needs to be counted, and refused, without weights.

They ship in `data/linears.json`, block numbers folded; `python -m lmmcl.models.linears` recomputes them (on torch's meta
device, without memory). For other models they follow from the configuration, which then needs torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
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
    folded = _shipped().get(lmm.name)
    if folded is None:
        return _of_configuration(lmm)
    found = {role: folded.get(role) or folded.get(summary([role])[0]) for role in lmm.role_counts()}
    return {role: [(rows, columns) for rows, columns in shapes] for role, shapes in found.items() if shapes}


@cache
def _shipped() -> dict[str, dict[str, list[list[int]]]]:
    return json.loads(SHIPPED.read_text(encoding="utf-8"))


def _of_configuration(lmm: LMM) -> Shapes:
    from lmmcl.models.inventory import meta_model
    from lmmcl.models.pretrained import PretrainedLMM

    if not isinstance(lmm, PretrainedLMM):
        raise UserError(
            "does not list the shapes of its linear layers, which an adapter needs", file=f"model {lmm.name}"
        )
    from transformers import AutoConfig

    return shapes_of(lmm, meta_model(AutoConfig.from_pretrained(**lmm.source())))


def linear_modules(model: Any) -> dict[str, Any]:
    """The linear layers of a loaded model by the name of their weight. A head that shares its weight with an embedding is none."""
    from torch import nn

    modules = dict(model.named_modules())
    found = {}
    for name, _ in model.named_parameters():  # tied weights come once, under the name of the first
        module = modules[name.rpartition(".")[0]]
        if name.endswith(".weight") and type(module) is nn.Linear:  # subclasses have a forward of their own
            found[name] = module
    return found


def shapes_of(lmm: LMM, model: Any) -> Shapes:
    """The shapes of a loaded (or meta) model."""
    roles = lmm.roles_of(name for name, _ in model.named_parameters())
    found: dict[str, list[tuple[int, int]]] = {}
    for name, module in linear_modules(model).items():
        found.setdefault(roles[name], []).append((module.out_features, module.in_features))
    return found


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


def compute(names: Iterable[str]) -> dict[str, Any]:
    """What ships of the models `names`, from their shipped configurations."""
    from lmmcl.models import get_model
    from lmmcl.models.inventory import meta_model, shipped
    from lmmcl.models.tiny.tiny import TinyLMM
    from lmmcl.models.tiny.tiny_config import configuration

    found = {}
    for name in names:
        lmm = get_model(name)
        config = configuration(lmm.style) if isinstance(lmm, TinyLMM) else shipped(name)["config"]
        found[name] = fold(shapes_of(lmm, meta_model(config)))
    return found


def write() -> None:
    """Compute and write the shapes of every model that ships."""
    from lmmcl.models import model_names

    models = ",\n".join(
        f'"{name}": {{\n'
        + ",\n".join(f" {json.dumps(role)}: {json.dumps(shapes)}" for role, shapes in roles.items())
        + "\n}"
        for name, roles in compute(sorted(model_names())).items()
    )
    SHIPPED.write_text(f"{{\n{models}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    write()
