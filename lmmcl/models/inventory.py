"""Inventories: how many parameters each role of a model has, known without weights.

`data/hub/<name>.json` ships the part of a checkpoint's configuration that fixes its architecture, and the inventory that
follows from it. `python -m lmmcl.maintenance.inventories` computes the inventories again (on torch's meta device, without memory).
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from lmmcl.models.partition.fused import fused_layouts

HUB = Path(__file__).parent / "data" / "hub"


@cache
def shipped(name: str) -> Mapping[str, Any]:
    """What ships of the model `name`: its `config` and its `roles` (parameters by role, blocks numbered)."""
    return json.loads((HUB / f"{name}.json").read_text(encoding="utf-8"))


def ships(name: str) -> bool:
    """Whether configuration and inventory of the model `name` ship."""
    return (HUB / f"{name}.json").is_file()


def meta_model(config: Any) -> Any:
    """A model with parameters that have shapes and no values. `config` is a configuration or its dictionary."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    if isinstance(config, Mapping):
        config = AutoConfig.for_model(**copy.deepcopy(dict(config)))
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


def parameter_counts(model: Any) -> dict[str, int]:
    """Number of elements of each parameter by name; tied ones once."""
    return {name: parameter.numel() for name, parameter in model.named_parameters()}


def count_roles(
    roles: Mapping[str, str], sizes: Mapping[str, int], pieces: Mapping[str, Mapping[str, int]] | None = None
) -> dict[str, int]:
    """Parameters by role, in the order in which the roles first occur. `pieces` are those of fused tensors, by name and role."""
    counts: Counter[str] = Counter()
    for name, role in roles.items():
        for part, size in (pieces or {}).get(name, {role: sizes[name]}).items():
            counts[part] += size
    return dict(counts)


def piece_counts(model: Any, roles: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """The number of entries of each part of the model's fused tensors whose layout is known, by name and role."""
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    return {
        name: {role: piece.size(shapes[name]) for role, piece in layout.items()}
        for name, layout in fused_layouts(model, roles).items()
    }
