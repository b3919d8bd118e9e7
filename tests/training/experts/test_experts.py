"""What holds for experts of every kind: equal to the base before training, one set over all stages, stored, loaded and resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from expert_parts import FOUR, FOUR_OF_RANK_2, MLPS, TINY, blocks_of, logits, two_stages
from killed_stage import finetune_killed_once
from stage_parts import BASE, stage

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.ledger import Ledger
from lmmcl.methods.recipes.recipe import get_recipe
from lmmcl.models import get_model
from lmmcl.models.experts import describe, grow, grown, roles_in
from lmmcl.models.roles import summary
from lmmcl.planning.memory_estimate import grown_by
from lmmcl.steps.count_trained import count_trained
from lmmcl.training.finetune import finetune
from lmmcl.weights.chain import tensors_of
from lmmcl.weights.checkpoint import ensure_pretrained, load_checkpoint, named_tensors


class Kind(NamedTuple):
    """A kind of experts: its recipe, what it adds to a model, the roles of that, and what is stored of the tiny model."""

    recipe: Any
    entries: Callable[..., list[str]]
    roles: tuple[str, ...]
    described: str
    trained_tensors: int
    names: tuple[str, ...]
    """One part of each name of a tensor that trains; every one is found."""


KINDS = [
    pytest.param(
        Kind(
            "moe",
            lambda *_: MLPS,
            ("gate", "up", "down"),
            "two experts in 3 MLPs",
            3 * (3 + 1),
            (".tuned.", ".router."),
        ),
        id="moe",
    ),
    pytest.param(
        Kind(
            FOUR_OF_RANK_2,
            lambda model, lmm: [FOUR.entry(layer) for layer in blocks_of(model, lmm)],
            ("q", "k", "v", "o", "gate", "up", "down"),
            "4 LoRA experts in 21 layers",
            3 * 21,
            (".experts_a", ".experts_b", ".router."),
        ),
        id="moelora",
    ),
]
pytestmark = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path / "store"))


@pytest.mark.parametrize("name", ["tiny-onevision", "tiny-next", "tiny-qwen"])
def test_before_training_the_model_is_the_base_in_training_and_in_evaluation(kind: Kind, name: str) -> None:
    lmm = get_model(name)
    model = lmm.load_model()
    expected, entries = logits(model, lmm), kind.entries(model, lmm)
    grow(model, entries)
    assert grown(model) == entries
    assert torch.equal(logits(model, lmm), expected)
    assert torch.equal(logits(model.train(), lmm), expected)


def test_the_partition_of_roles_stays_total(kind: Kind) -> None:
    model = TINY.load_model()
    plain = TINY.roles_of(name for name, _ in model.named_parameters())
    grow(model, kind.entries(model, TINY))
    roles = roles_in(TINY, model)
    assert set(roles) == {name for name, _ in model.named_parameters()}
    assert {name: roles[name] for name in plain} == plain
    added = {f"llm.blocks.*.expert.{part}" for part in kind.roles} | {"llm.blocks.*.router"}
    assert set(summary(roles[name] for name in roles.keys() - plain.keys())) == added


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_set_of_experts_trains_over_all_stages_and_the_base_stays(
    kind: Kind, precision: str, ledger: Ledger
) -> None:
    first, second = two_stages(kind.recipe, precision=precision)
    planned = count_trained(get_recipe(kind.recipe), TINY)
    base = named_tensors(TINY.load_model(precision=precision))
    for step in (first, second):
        record = finetune(step, ledger, TrainingPlacement())
        assert record["trained_parameters"] == planned.trained == planned.changed == grown_by(step)
        assert record["proof"]["frozen"] == len(base)
        assert record["proof"]["moved"] + len(record["proof"]["unmoved"]) == kind.trained_tensors
    one, two = (load_checkpoint(step, ledger, precision=precision) for step in (first, second))
    assert grown(one) == grown(two) and describe(grown(one)) == kind.described
    after_one, after_two = named_tensors(one), named_tensors(two)
    assert after_one.keys() == after_two.keys()
    assert all(torch.equal(base[name], tensors[name]) for tensors in (after_one, after_two) for name in base)
    moved = {name for name in after_one if not torch.equal(after_one[name], after_two[name])}
    assert all(any(part in name for part in kind.names) for name in moved)
    assert all(any(part in name for name in moved) for part in kind.names)
    assert not torch.equal(logits(two), logits(one))


def test_a_checkpoint_that_is_read_back_has_its_experts(kind: Kind, ledger: Ledger) -> None:
    first, second = two_stages(kind.recipe)
    for step in (first, second):
        finetune(step, ledger, TrainingPlacement())
    ensure_pretrained(BASE, ledger)
    model = load_checkpoint(ledger.checkpoint(second.key), ledger, precision="fp32")
    assert torch.equal(logits(model), logits(load_checkpoint(second, ledger, precision="fp32")))
    with tensors_of(second, ledger) as chain:
        assert describe(chain.experts) == kind.described


def test_the_same_stage_gives_the_same_experts_after_a_kill(kind: Kind, tmp_path: Path) -> None:
    whole, killed = Ledger(str(tmp_path / "whole")), Ledger(str(tmp_path / "killed"))
    step, placement = stage(recipe=kind.recipe), TrainingPlacement(save_every=2)
    finetune(step, whole, placement)
    finetune_killed_once(step, killed, placement)
    one, other = (named_tensors(load_checkpoint(step, ledger, precision="fp32")) for ledger in (whole, killed))
    assert all(torch.equal(one[name], other[name]) for name in one)
