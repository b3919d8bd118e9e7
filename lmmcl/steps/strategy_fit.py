"""Whether a stage can be trained under a strategy that divides a model among its workers: told beforehand, by a plan as by a run.

What cannot be is refused by name: a mitigation or an adapter that needs whole weights, and slices of fused tensors.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.errors import UserError
from lmmcl.methods.divided import DIVIDED, check_divided, check_slices
from lmmcl.methods.mitigation import TrainingMitigation
from lmmcl.methods.recipes.adapters import check_whole_adapter
from lmmcl.methods.recipes.recipe import Recipe
from lmmcl.models.inventory import ships
from lmmcl.models.linears import linear_shapes, meta_of
from lmmcl.models.lmm import LMM
from lmmcl.models.partition.fused import select_slices
from lmmcl.models.roles import select
from lmmcl.steps.checkpoints import Finetune
from lmmcl.steps.count_trained import trains_head
from lmmcl.steps.quantized import check_quantized_strategy

_FUSABLE = re.compile(r"(?P<module>.*\.)(?P<part>gate|up|q|k|v)(?P<kind>\..*)?$")
"""Roles that models may hold in one tensor with others of their module."""
_GROUPS = ({"gate", "up"}, {"q", "k", "v"})


def check_strategy_fit(step: Finetune, strategy: str) -> None:
    """Raises UserError when the mitigation, the adapter, a slice that `step` trains or its quantised base cannot be had under
    `strategy` (a word of `TrainingPlacement.strategy_name`)."""
    check_divided(
        step.mitigation,
        strategy,
        trains_head=lambda: trains_head(step.recipe, step.model),
        precision=step.training.precision,
    )
    check_whole_adapter(step.recipe.adapter, strategy)
    check_quantized_strategy(step.model, strategy)
    if strategy in DIVIDED:
        check_slices(fused_in_part(step.recipe, step.model), strategy)


def check_packed(mitigation: TrainingMitigation[Any] | None) -> None:
    """Raises UserError for a mitigation that looks at the rows of a batch, which packing makes one."""
    hooks = [
        hook for hook in ("batch", "penalty", "token_penalty", "sample_loss") if mitigation and mitigation.uses(hook)
    ]
    if mitigation and hooks:
        raise UserError(
            f"mitigation {mitigation.name} looks at batches row by row, and packing makes one row of them; set packing: false",
            place="training.packing",
        )


def why_loss_apart(mitigation: TrainingMitigation[Any] | None, placement: TrainingPlacement) -> str | None:
    """Why head and loss of a stage are computed one after the other under `liger`, as far as a plan knows; None if in one."""
    if mitigation is not None and any(mitigation.uses(hook) for hook in ("token_weights", "penalty", "token_penalty")):
        return f"mitigation {mitigation.name} is shown the logits"
    if placement.compile or placement.strategy_name in ("zero3", "fsdp"):
        return f"with {'compile' if placement.compile else placement.strategy_name} the head runs as it is"
    return None


@cache
def fused_in_part(recipe: Recipe, lmm: LMM) -> tuple[str, ...]:
    """The fused tensors that `recipe` trains in part, by name.

    Which tensors are fused, the model's modules say (they need torch); they are not looked at where the recipe divides no
    group of parts that could share a tensor, or the shipped inventory of a model knows of none.
    """
    if not _divides_a_group(recipe, lmm) or _ships_without_fused(lmm):
        return ()
    model = meta_of(lmm)
    roles = lmm.roles_of(name for name, _ in model.named_parameters())
    return tuple(sorted(select_slices(model, roles, recipe.train, name=lmm.name)))


def _divides_a_group(recipe: Recipe, lmm: LMM) -> bool:
    """Whether it trains some of a module's gate and up, or of its queries, keys and values, and not the others."""
    counts = lmm.role_counts()
    trained = select({role: role for role in counts}, recipe.train, model=lmm.name)
    groups: dict[tuple[str, str, int], list[bool]] = {}
    for role in counts:
        if match := _FUSABLE.fullmatch(role):
            group = next(number for number, parts in enumerate(_GROUPS) if match["part"] in parts)
            groups.setdefault((match["module"], match["kind"] or "", group), []).append(role in trained)
    return any(any(chosen) and not all(chosen) for chosen in groups.values())


def _ships_without_fused(lmm: LMM) -> bool:
    if not ships(lmm.plain.name):
        return False
    return not any("+" in role for role in linear_shapes(lmm)) and not any(
        ".routed" in role for role in lmm.role_counts()
    )
