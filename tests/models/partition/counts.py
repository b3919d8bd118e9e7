"""What recipes train of a model, from its parameters by role alone."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from lmmcl.errors import UserError
from lmmcl.methods import RECIPES
from lmmcl.models.lmm import LMM
from lmmcl.steps.count_trained import count_trained


class SmallLMM(LMM):
    """A model of a type as far as counting goes."""

    def __init__(self, name: str, counts: dict[str, int]) -> None:
        self.name, self.counts = name, counts

    def identity(self) -> dict[str, Any]:
        return {"name": self.name}

    def role_counts(self) -> dict[str, int]:
        return self.counts

    def load_model(self, **_: Any) -> Any:
        raise NotImplementedError

    def load_processor(self) -> Any:
        raise NotImplementedError


def shares(model_type: str, counts: dict[str, int]) -> dict[str, float]:
    """The share of all parameters that each recipe trains; recipes that are refused are left out."""
    lmm, total = SmallLMM(model_type, counts), sum(counts.values())
    found = {}
    for recipe in RECIPES.values():
        with suppress(UserError):
            if recipe.adapter is None:
                found[recipe.name] = round(count_trained(recipe, lmm).trained / total, 4)
    return found
