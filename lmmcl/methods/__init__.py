"""How it is taught: recipes (which parameters train) and mitigations (what protects the old while the new is learnt)."""

from __future__ import annotations

from lmmcl.methods.lookup import get_mitigation, mitigation_names
from lmmcl.methods.mitigation import Mitigation
from lmmcl.methods.recipes.recipe import RECIPES, Recipe, get_recipe

__all__ = ["RECIPES", "Mitigation", "Recipe", "get_mitigation", "get_recipe", "mitigation_names"]
