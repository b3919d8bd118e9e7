"""The examination by behaviour finds wrong roles: it would be worth little if nothing could fail it."""

from __future__ import annotations

import pytest
from models.partition.behaviour import Uses, build, check_images, check_mlps, check_text, run

from lmmcl.models.partition.regions import partition

GATE = "model.language_model.layers.1.mlp.gate_proj.weight"
UP = GATE.replace("gate", "up")
QUERY = "model.language_model.layers.0.self_attn.q_proj.weight"
TOWER = "model.vision_tower.encoder.layers.0.mlp.fc1.weight"


def findings(changes: dict[str, str]) -> str:
    model = build("llava")
    roles = partition(model) | changes
    uses = Uses(model)
    with uses.watch():
        pictured = run(model)
    text = check_text(model, roles, uses, pictured=pictured)
    return "; ".join([*text, *check_mlps(model, roles, uses), *check_images(model, roles)[1]])


def test_right_roles_are_found_right() -> None:
    assert findings({}) == ""


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({GATE: "llm.blocks.1.mlp.up", UP: "llm.blocks.1.mlp.gate"}, "the output bends with up"),
        ({QUERY: "llm.blocks.0.mlp.up"}, "is llm.blocks.0.mlp.up and used inside of attention"),
        ({UP: "llm.blocks.1.attention.q"}, "is llm.blocks.1.attention.q and used outside of attention"),
        ({QUERY: "vision.other"}, "a text uses vision.other"),
        ({TOWER: "llm.blocks.0.mlp.up"}, "a text does not use llm.blocks.0.mlp.up"),
        ({TOWER: "llm.head"}, "a picture uses llm.head"),
    ],
)
def test_a_wrong_role_is_found(changes: dict[str, str], found: str) -> None:
    assert found in findings(changes)
