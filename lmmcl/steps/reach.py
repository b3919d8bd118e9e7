"""Whether a recipe reaches what its name promises: without roles for experts, `gate_up` would train a mixture's first block alone.

Refused is what trains less than a tenth of it, unless the recipe says `partial: true`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from lmmcl.errors import UserError
from lmmcl.models.lmm import LMM
from lmmcl.models.roles import resolve, selects, split_role

if TYPE_CHECKING:
    from lmmcl.methods.recipes.recipe import Recipe

SHARE = 0.1
_PARTS = re.compile(r"(llm\.blocks\.[^.]+)\.(attention|mlp)(?:\.[^.]+)?")
"""Selectors that promise a part of every block that they name; one with a kind (`….routed`) asks for no more than that."""


def check_reach(recipe: Recipe, selectors: Sequence[str], trained: Mapping[str, int], lmm: LMM) -> None:
    """Raise UserError where `trained` (parameters by role) is under a tenth of what `selectors` promise of `lmm`.

    Promised, and out of reach, are the same parts of blocks where no role of theirs is selected, and what is in no part at all
    (`llm.blocks.N.other`).
    """
    if recipe.partial:
        return
    counts = lmm.role_counts()
    for part in ("attention", "mlp"):
        blocks = [match[1] for text in selectors if (match := _PARTS.fullmatch(text)) and match[2] == part]
        blocks = [resolve(block, counts, model=lmm.name) for block in blocks]
        covered = {role: n for role, n in counts.items() if any(selects(block, role) for block in blocks)}
        reached = sum(n for role, n in trained.items() if f".{part}." in role and role in covered)
        missed = _missed(covered, part, trained)
        if reached and reached < SHARE * (reached + missed):
            total = sum(counts.values())
            raise UserError(
                f"recipe {recipe.name}: trains {reached / total:.2%} of {lmm.name} in {', '.join(selectors)}, and "
                f"{missed / total:.1%} of the model lies in the same blocks in roles that it does not reach "
                f"({', '.join(_largest(covered, trained))}); name them in `train`, or allow it with `partial: true`"
            )


def _missed(covered: Mapping[str, int], part: str, trained: Mapping[str, int]) -> int:
    reached = {_block(role) for role in trained if f".{part}." in role}
    return sum(
        n
        for role, n in covered.items()
        if role.split(".")[3] == "other" or (role.split(".")[3] == part and _block(role) not in reached)
    )


def _block(role: str) -> str:
    return ".".join(role.split(".")[:3])


def _largest(covered: Mapping[str, int], trained: Collection[str]) -> list[str]:
    folded: dict[str, int] = {}
    for role, n in covered.items():
        if role not in trained:
            name = re.sub(r"\.\d+\.", ".*.", role)
            folded[name] = folded.get(name, 0) + n
    return sorted(folded, key=lambda name: -folded[name])[:3]


def check_adapted(recipe: Recipe, in_layers: int, targeted: int, model: str) -> None:
    """Raise UserError where an adapter's layers hold under a tenth of the parameters that it targets.

    Adapters are for linear layers: the experts of a mixture are stacked in one tensor, which is none.
    """
    assert recipe.adapter is not None
    if recipe.partial or in_layers >= SHARE * targeted:
        return
    raise UserError(
        f"recipe {recipe.name}: {recipe.adapter.label} adapts linear layers, and of the {targeted:,} parameters of {model} "
        f"under {', '.join(recipe.adapter.targets)} only {in_layers:,} ({in_layers / targeted:.1%}) are in one (routed experts "
        "are stacked tensors); target other roles, train them without an adapter, or allow it with `partial: true`"
    )


def by_first_part(
    shapes: Mapping[str, Sequence[tuple[int, int]]], targets: Collection[str]
) -> dict[str, Sequence[tuple[int, int]]]:
    """`shapes` of linear layers by single roles, a fused layer under the first of its own.

    Raises UserError where `targets` hold some roles of a fused layer and not all: an adapter is for a whole layer.
    """
    single: dict[str, Sequence[tuple[int, int]]] = {}
    for role, layers in shapes.items():
        parts = split_role(role)
        hits = [part for part in parts if part in targets or role in targets]
        if hits and len(hits) < len(parts):
            raise UserError(
                f"an adapter is for whole layers, and {' and '.join(parts)} are one layer here; target all of them",
                place=role,
            )
        single[role if role in targets else parts[0]] = layers
    return single
