"""Recipes: which parameters train; all others stay frozen. A recipe is data — a new one is one entry here or in a sweep.

The eight component recipes are those of LMM-CL (arXiv 2510.08564, section 3). `a+b` trains the union of two recipes.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from lmmcl.errors import UserError, unknown


class Recipe(BaseModel):
    """A name and the role selectors that train (see `lmmcl.models.roles`). The selectors enter a key; the name does not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    train: tuple[str, ...] = Field(min_length=1)

    @field_validator("train")
    @classmethod
    def _canonical(cls, selectors: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(selectors)))

    def identity(self) -> dict[str, Any]:
        """What enters a key: equal selectors are the same recipe under any name."""
        return {"train": list(self.train)}

    @property
    def label(self) -> str:
        """A name that depends on the selectors alone, for paths: a user's own name would make equal work two folders."""
        return _NAME_BY_SELECTORS.get(self.train, "custom")


RECIPES: dict[str, Recipe] = {
    name: Recipe(name=name, train=selectors)
    for name, selectors in {
        "full": ("*",),  # also what only some families have, such as a Q-Former
        "vision": ("vision",),
        "projector": ("projector",),
        "llm": ("llm",),
        "mlp": ("llm.blocks.*.mlp",),
        "gate_up": ("llm.blocks.*.mlp.gate", "llm.blocks.*.mlp.up"),
        "sa_proj": ("llm.blocks.*.attention",),
        "sa_qkv": ("llm.blocks.*.attention.q", "llm.blocks.*.attention.k", "llm.blocks.*.attention.v"),
    }.items()
}

_NAME_BY_SELECTORS = {recipe.train: recipe.name for recipe in RECIPES.values()}


def get_recipe(name: str) -> Recipe:
    """The recipe called `name`, or the union of those that a `+` joins; raises UserError with the nearest names."""
    parts = name.split("+")
    for part in parts:
        if part not in RECIPES:
            raise UserError(unknown("recipe", part, RECIPES))
    return (
        RECIPES[name] if len(parts) == 1 else Recipe(name=name, train=tuple(s for p in parts for s in RECIPES[p].train))
    )
