"""Nothing is kept for the way back below the lowest block that trains, nor computed again there; gradients are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from activation_counts import ON, RECIPES, blocks_of, passed, ready, recipe_stage, switch_on

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.ledger import Ledger
from lmmcl.training.efficiency.checkpointing import checkpoint_what_learns
from lmmcl.training.finetune import finetune


def lowest_block(name: str) -> int | None:
    """Of the language model, the first that the way back reaches."""
    return {"sa_proj of the last block": 2, "head": None}.get(name, 0)


@pytest.mark.parametrize("name", RECIPES)
def test_below_what_trains_nothing_is_kept_or_computed_again(name: str, tmp_path: Path) -> None:
    trainer = ready(name, tmp_path)
    model: Any = trainer.taught
    blocks = blocks_of(model)
    language = [block for block in blocks if "language_model" in block]
    vision = [block for block in blocks if block not in language]
    assert len(language) == 3 and vision
    lowest = lowest_block(name)
    reached = set(language[lowest:] if lowest is not None else []) | (set(vision) if name == "vision" else set())

    model.train()
    plain, once, gradients = passed(trainer)
    assert {block for block in blocks if plain[block]} == reached, "without checkpointing"
    assert set(once.values()) == {1}

    switch_on(model)
    with checkpoint_what_learns(model, ON):
        kept, runs, same = passed(trainer)
    assert {block for block in blocks if runs[block] == 2} == reached, (
        "computed again is what a gradient passes through"
    )
    assert all(kept[block] <= plain[block] for block in blocks)
    assert sum(kept.values()) < sum(plain.values()) or not reached
    assert same.keys() == gradients.keys()
    for key, gradient in gradients.items():
        torch.testing.assert_close(same[key], gradient, msg=key)


def test_a_block_that_nothing_trained_precedes_is_not_even_asked_to_checkpoint(tmp_path: Path) -> None:
    model: Any = ready("sa_proj of the last block", tmp_path).taught
    calls: list[Any] = []
    switch_on(model)
    blocks = blocks_of(model)
    for name, block in blocks.items():
        block._gradient_checkpointing_func = lambda run, *inputs, name=name: (calls.append(name), run(*inputs))[1]
    model.train()
    inputs = torch.randint(0, 50, (1, 5))
    with checkpoint_what_learns(model, ON):
        model(input_ids=inputs)
    assert calls == [name for name in blocks if "language_model" in name][2:]


def test_the_hooks_are_gone_after_a_stage(tmp_path: Path) -> None:
    step = recipe_stage("sa_proj of the last block")
    record = finetune(step, Ledger(str(tmp_path)), TrainingPlacement(gradient_checkpointing=True))
    assert record["strategy"]["gradient_checkpointing"]
    model: Any = ready("llm", tmp_path).taught
    with checkpoint_what_learns(model, ON):
        assert all(block._forward_pre_hooks for block in blocks_of(model).values())
    assert not any(block._forward_pre_hooks for block in blocks_of(model).values())
