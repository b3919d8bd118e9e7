"""Every mitigation with every kind of recipe: what the door lets through trains two stages, or merges; nothing fails halfway."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from stage_parts import BASE, made_skill, shades, stage

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.methods import get_mitigation, get_recipe, mitigation_names
from lmmcl.methods.mitigation import MergeMitigation
from lmmcl.steps import Finetune, Merge
from lmmcl.training.finetune import finetune
from lmmcl.weights.merging import merge

SETTINGS: dict[str, dict[str, Any]] = {
    "replay": {"examples": 2},
    "model_tailor": {"samples": 8},
    "grpo": {"group": 4, "temperature": 2.0},
}
RECIPES: dict[str, Any] = {
    "full": "full",
    "projector": "projector",
    "norms": "norms",
    "embeddings": "embeddings",
    "moe": "moe",
    "moelora": {"moelora": {"experts": 2, "rank": 4}},
    "osf": "osf",
    "lora": {"lora": {"rank": 4}},
    "dora": {"lora": {"rank": 4, "dora": True}},
}
PLACE = TrainingPlacement()


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return Ledger(str(tmp_path_factory.mktemp("combinations")))


def tuned(recipe: str, **more: Any) -> Finetune:
    return dataclasses.replace(stage(max_steps=2), recipe=get_recipe(RECIPES[recipe]), **more)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", mitigation_names())
def test_what_is_not_refused_runs(name: str, recipe: str, ledger: Ledger) -> None:
    mitigation = get_mitigation({name: SETTINGS.get(name, {})})
    try:
        mitigation.check_recipe(get_recipe(RECIPES[recipe]))
    except UserError as refused:
        assert "allowed: " in str(refused) or "try " in str(refused)
        return
    if isinstance(mitigation, MergeMitigation):
        if not ledger.has_usable(tuned(recipe)):
            finetune(tuned(recipe), ledger, PLACE)
        record = merge(Merge(BASE, (tuned(recipe),), mitigation), ledger)
        if mitigation.routes:
            assert record["routed"]["experts"] == [tuned(recipe).key]
            return
        assert record["changed_entries"] > 0, "a merge that puts everything back is not a mitigation"
        return
    first = tuned(recipe, mitigation=mitigation)
    for step in (first, dataclasses.replace(first, parent=first, skill=made_skill("other", shades(12, 90)))):
        assert finetune(step, ledger, PLACE)["updates"] == 2
