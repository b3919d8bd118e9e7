"""Whose image features can be used again: a tower and projector that are the base's in every tensor, buffers included."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lmmcl.ledger import Ledger
from lmmcl.models import get_model
from lmmcl.steps import Pretrained
from lmmcl.weights.checkpoint import load
from lmmcl.weights.image_features.frozen_tower import frozen_tower

LMM = get_model("tiny-onevision")
POSITIONS = "model.vision_tower.embeddings.position_ids"
PROJECTOR = "model.multi_modal_projector.linear_1.weight"
LANGUAGE = "model.language_model.layers.0.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("changed", "learns", "frozen"),
    [
        ((), (), True),
        ((LANGUAGE,), (LANGUAGE,), True),
        ((PROJECTOR,), (), False),
        ((), (PROJECTOR,), False),
        ((POSITIONS,), (), False),
    ],
    ids=["the base", "language alone", "trained before", "learns", "a buffer"],
)
def test_a_tower_is_frozen_where_none_of_its_tensors_changed_or_learns(
    changed: tuple[str, ...], learns: tuple[str, ...], frozen: bool
) -> None:
    loaded = load(Pretrained(LMM), Ledger("/nowhere"), "fp32", "cpu", "sdpa", shared=True)
    tower = frozen_tower(LMM, replace(loaded, changed=frozenset(changed)), learns=learns)
    assert (tower is not None) is frozen
    if tower is not None:
        assert POSITIONS in tower.tensors and PROJECTOR in tower.tensors and LANGUAGE not in tower.tensors
        assert tower.owner is loaded.model.model and loaded.model.model not in tower.modules
