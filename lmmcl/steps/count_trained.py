"""What a recipe trains of a model, told from the model's inventory alone: parameters, and what a stage then writes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from lmmcl.config.settings import BYTES
from lmmcl.errors import UserError
from lmmcl.methods.recipes.recipe import Recipe
from lmmcl.models.linears import linear_shapes
from lmmcl.models.lmm import LMM
from lmmcl.models.roles import check_whole, select
from lmmcl.steps.quantized import check_quantized
from lmmcl.steps.reach import by_first_part, check_adapted, check_reach


@dataclass(frozen=True)
class Trained:
    """Numbers of parameters. An adapter trains few and, merged, changes many.

    A stage writes the parameters that it changes, but for those that an adapter changes which is stored itself (`adapter`).
    """

    trained: int
    changed: int
    adapter: int = 0
    adapted: int = 0

    def stage_bytes(self, precision: str) -> int:
        """What the checkpoint of a stage holds."""
        return (self.changed - self.adapted) * BYTES[precision] + self.adapter * BYTES["fp32"]

    def merge_bytes(self, precision: str) -> int:
        """What a merge of such stages holds: all that they change."""
        return self.changed * BYTES[precision]


@cache
def count_trained(recipe: Recipe, lmm: LMM) -> Trained:
    """How much `recipe` trains of `lmm` and changes at each stage.

    Raises UserError when a selector matches no role of the model, an adapter fits no layer or one that trains itself, or a
    learning rate is for something that does not train.
    """
    check_quantized(recipe, lmm)
    counts = lmm.role_counts()
    roles = {role: role for role in counts}
    own = select(roles, recipe.train, model=lmm.name)
    check_whole(recipe.train, own, model=lmm.name)
    check_reach(recipe, recipe.train, {role: counts[role] for role in own}, lmm)
    trained = changed = sum(counts[role] for role in own)
    adapter = adapted = 0
    targets: set[str] = set()
    if recipe.adapter:
        targets = select(roles, recipe.adapter.targets, model=lmm.name)
        check_whole(recipe.adapter.targets, targets, model=lmm.name)
        if both := own & targets:
            raise UserError(
                f"recipe {recipe.name}: {_some(both)} would train itself and have an adapter; allowed: one of them"
            )
        try:
            shapes = by_first_part(linear_shapes(lmm), targets)
            added, merged = recipe.adapter.size(targets, counts, shapes)
        except UserError as error:
            raise error.at(place=" ".join(filter(None, (lmm.name, error.place)))) from error
        layers = sum(rows * columns for role in targets for rows, columns in shapes.get(role, ()))
        check_adapted(recipe, layers, sum(counts[role] for role in targets), lmm.name)
        trained, changed = trained + added, changed + merged
        if recipe.adapter.is_stored:
            adapter, adapted = added, merged
        targets = recipe.adapter.trained_roles(targets)
    recipe.rates(own | targets, counts.keys() | targets, model=lmm.name)
    return Trained(trained, changed, adapter, adapted)


@cache
def trains_head(recipe: Recipe, lmm: LMM) -> bool:
    """Whether what turns hidden states into logits trains: the head, or the embeddings where the head shares their weight."""
    counts = lmm.role_counts()
    head = "llm.head" if "llm.head" in counts else "llm.embeddings"
    return head in select({role: role for role in counts}, recipe.selectors, model=lmm.name)


def _some(roles: set[str]) -> str:
    return ", ".join(sorted(roles)[:3])
