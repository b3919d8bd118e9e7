"""A recipe that reaches little of what its name promises is refused with the numbers, unless it says `partial`."""

from __future__ import annotations

from typing import Any

import pytest
from models.partition.counts import SmallLMM

from lmmcl.errors import UserError
from lmmcl.methods.recipes.recipe import get_recipe
from lmmcl.steps.count_trained import count_trained

DENSE = {f"llm.blocks.0.mlp.{part}": 10 for part in ("gate", "up", "down")}
ATTENTION = {f"llm.blocks.{block}.attention.{part}": 5 for block in range(4) for part in "qkvo"}


def counted(counts: dict[str, int], recipe: Any) -> int:
    return count_trained(get_recipe(recipe), SmallLMM("small", counts)).trained


def test_experts_without_a_role_make_gate_up_too_small() -> None:
    counts = DENSE | ATTENTION | {f"llm.blocks.{block}.other": 500 for block in range(1, 4)}
    with pytest.raises(
        UserError, match=r"gate_up: trains 1.24% of small .* 93.2% of the model .*llm.blocks.\*.other.*partial: true"
    ):
        counted(counts, "gate_up")
    assert counted(counts, {"gate_up": {"partial": True}}) == 20


def test_blocks_whose_mlp_has_no_gate_count_as_out_of_reach() -> None:
    counts = DENSE | {f"llm.blocks.{block}.mlp.{part}": 200 for block in range(1, 4) for part in ("up", "down")}
    with pytest.raises(UserError, match="does not reach"):
        counted(counts, {"name": "gates", "train": ["llm.blocks.*.mlp.gate"]})
    assert counted(counts, "mlp") == 1230


def test_small_parts_that_are_whole_are_no_reason_to_refuse() -> None:
    counts = {f"llm.blocks.0.attention.{part}": size for part, size in (("q", 1000), ("k", 8), ("v", 8), ("o", 1000))}
    assert counted(counts, {"name": "keys", "train": ["llm.blocks.*.attention.k"]}) == 8


def test_partial_is_no_part_of_what_is_computed() -> None:
    assert get_recipe({"gate_up": {"partial": True}}).identity() == get_recipe("gate_up").identity()
