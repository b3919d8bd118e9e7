"""Compute `lmmcl/models/data/linears.json`, the shapes of linear layers, again: `python -m lmmcl.maintenance.layer_shapes`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from lmmcl.models import get_model, model_names
from lmmcl.models.inventory import ships
from lmmcl.models.linears import SHIPPED, fold, meta_of, shapes_of
from lmmcl.models.tiny.tiny import TinyLMM


def compute(names: Iterable[str]) -> dict[str, Any]:
    """What ships of the models `names`, from their shipped configurations."""
    shapes = {}
    for name in names:
        lmm = get_model(name)
        if not isinstance(lmm, TinyLMM) and not ships(name):
            continue
        shapes[name] = fold(shapes_of(lmm, meta_of(lmm)))
    return shapes


def write() -> None:
    """Compute and write the shapes of every model that ships."""
    models = ",\n".join(
        f'"{name}": {{\n'
        + ",\n".join(f" {json.dumps(role)}: {json.dumps(shapes)}" for role, shapes in roles.items())
        + "\n}"
        for name, roles in compute(sorted(model_names())).items()
    )
    SHIPPED.write_text(f"{{\n{models}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    write()
