"""Compute the inventories that ship in `lmmcl/models/data/hub` again: `python -m lmmcl.maintenance.inventories`."""

from __future__ import annotations

import json
from collections.abc import Iterable

from lmmcl.models import get_model
from lmmcl.models.inventory import HUB, count_roles, meta_model, parameter_counts, piece_counts, shipped


def compute(name: str) -> dict[str, int]:
    """The inventory of a shipped model, from its shipped configuration."""
    model = meta_model(shipped(name)["config"])
    sizes = parameter_counts(model)
    roles = get_model(name).roles_of(sizes)
    return count_roles(roles, sizes, piece_counts(model, roles))


def write(names: Iterable[str]) -> None:
    """Compute and write the inventories of `names`."""
    for name in names:
        text = json.dumps({**shipped(name), "roles": compute(name)}, indent=1)
        (HUB / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(sorted(path.stem for path in HUB.glob("*.json")))
