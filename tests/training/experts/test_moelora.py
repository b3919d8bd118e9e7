"""LoRA experts with a gate: what they compute, where they start, their size and settings, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from expert_parts import FOUR, FOUR_OF_RANK_2, TINY
from made import SWEEP, write_sweep
from stage_parts import stage

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.config.sweep import load_sweep
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.methods.recipes.recipe import get_recipe
from lmmcl.models import get_model
from lmmcl.models.experts import grow, roles_in
from lmmcl.models.experts.lora_experts import LoRAExperts
from lmmcl.steps.count_trained import count_trained
from lmmcl.training.finetune import finetune
from lmmcl.training.stage_errors import StageError
from lmmcl.weights.adapter_export import export_adapter
from lmmcl.weights.chain import tensors_of
from lmmcl.weights.checkpoint import export

LAYER = "model.language_model.layers.1.mlp.up_proj"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path / "store"))


def test_a_layer_adds_every_experts_output_times_the_scale_and_its_share_of_the_token() -> None:
    """Against the sum as the paper writes it: one expert after the other, one token after the other, in doubles."""
    model = TINY.load_model()
    grow(model, [FOUR.entry(LAYER)])
    layer = model.get_submodule(LAYER).double()
    with torch.no_grad():
        layer.experts_b.normal_(generator=torch.Generator().manual_seed(0))
    hidden = torch.randn(2, 7, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = torch.empty(2, 7, 384, dtype=torch.float64)
    for row in range(2):
        for token in range(7):
            x = hidden[row, token]
            exponents = [float(torch.exp(gate @ x)) for gate in layer.router.weight.detach()]
            y = layer.weight @ x
            for number in range(4):
                a = layer.experts_a[2 * number : 2 * number + 2]
                b = layer.experts_b[:, 2 * number : 2 * number + 2]
                y = y + 2.0 * exponents[number] / sum(exponents) * (b @ (a @ x))
            expected[row, token] = y.detach()
    for mode in (True, False):
        torch.testing.assert_close(layer.train(mode)(hidden), expected, rtol=1e-6, atol=1e-6)  # the gate is in fp32


def test_dropout_is_of_the_experts_input_in_training_alone() -> None:
    model = TINY.load_model()
    grow(model, [LoRAExperts(4, 2, 2.0, 0.5, 5).entry(LAYER)])
    layer = model.get_submodule(LAYER)
    with torch.no_grad():
        layer.experts_b.normal_(generator=torch.Generator().manual_seed(0))
    hidden = torch.randn(3, 96, generator=torch.Generator().manual_seed(1))
    assert torch.equal(layer.eval()(hidden), layer(hidden))
    assert not torch.equal(layer.train()(hidden), layer(hidden))


def test_experts_start_as_the_seed_and_the_layer_say() -> None:
    def start(seed: int, layer: str) -> torch.Tensor:
        model = TINY.load_model()
        grow(model, [LoRAExperts(4, 2, 2.0, 0.0, seed).entry(layer)])
        return model.get_submodule(layer).experts_a.detach()

    gate = LAYER.replace("up_proj", "gate_proj")
    assert torch.equal(start(5, LAYER), start(5, LAYER))
    assert not torch.equal(start(5, LAYER), start(6, LAYER))
    assert not torch.equal(start(5, LAYER), start(5, gate))
    assert 0.008 < float(start(5, LAYER).std()) < 0.012


def test_experts_have_the_role_of_the_layer_that_they_stand_in() -> None:
    model = TINY.load_model()
    grow(model, [FOUR.entry(LAYER)])
    roles = roles_in(TINY, model)
    assert roles[f"{LAYER}.experts_a"] == roles[f"{LAYER}.experts_b"] == "llm.blocks.1.expert.up"


def test_later_stages_may_train_experts_of_more_layers_but_not_other_experts(ledger: Ledger) -> None:
    few = {"moelora": {**FOUR_OF_RANK_2["moelora"], "targets": ["llm.blocks.last-1.mlp"]}}
    first = stage(recipe=few)
    second = stage(recipe=FOUR_OF_RANK_2, parent=first)
    for step in (first, second):
        finetune(step, ledger, TrainingPlacement())
    with tensors_of(second, ledger) as chain:
        assert len(chain.experts) == 21
    other = stage(recipe={"moelora": {"experts": 2, "rank": 8, "alpha": 16}}, parent=first)
    with pytest.raises(StageError, match="3 layers have other experts than moelora-e2-r8"):
        finetune(other, ledger, TrainingPlacement())


def test_neither_a_folder_nor_an_adapter_can_be_exported(ledger: Ledger, tmp_path: Path) -> None:
    step = stage(recipe=FOUR_OF_RANK_2)
    finetune(step, ledger, TrainingPlacement())
    for write in (export, export_adapter):
        with pytest.raises(
            UserError, match=r"4 LoRA experts in 21 layers, and no class of transformers .* nor can a PEFT"
        ):
            write(step, ledger, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_its_size_is_counted_from_the_shapes_alone() -> None:
    model = get_model("llava-1.5-7b")
    hidden, wide, blocks = 4096, 11008, 32
    layers = [(hidden, hidden)] * 4 + [(wide, hidden)] * 2 + [(hidden, wide)]
    expected = blocks * sum(128 * (rows + columns) + 8 * columns for rows, columns in layers)
    assert count_trained(get_recipe("moelora"), model).trained == expected


def test_settings_are_identity_and_the_gate_may_have_its_own_rate() -> None:
    entries: list[Any] = [
        "moelora",
        {"moelora": {"experts": 4}},
        {"moelora": {"rank": 64}},
        {"moelora": {"dropout": 0.0}},
    ]
    assert len({str(get_recipe(entry).identity()) for entry in entries}) == 4
    assert [get_recipe(entry).label for entry in entries[:3]] == ["moelora", "moelora-e4-r128", "moelora-e8-r64"]
    gates = get_recipe({"moelora": {"learning_rates": {"llm.blocks.*.router": 1e-4}}})
    assert count_trained(gates, TINY) == count_trained(get_recipe("moelora"), TINY)


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ("recipe: [{moelora: {rank: 100}}]", "rank 100 cannot be divided by 8 experts; allowed: a multiple such as 96"),
        ("recipe: [{moelora: {targets: [projector]}}]", "experts are in layers of the language model such as"),
        ("recipe: [{moelora: {rank: 1024}}]", "experts of rank 128 are above what a layer of .* allowed: rank up to"),
        ("recipe: [moelora+gate_up]", "would train itself and have an adapter"),
        ("recipe: [moelora], mitigation: [wise_ft]", "'moelora' adds experts"),
        ("recipe: [moelora], mitigation: [ewc]", "ewc measures .* experts of 'moelora'"),
    ],
)
def test_what_cannot_be_is_refused_at_the_door(tmp_path: Path, grid: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_sweep(write_sweep(tmp_path, SWEEP.replace("recipe: [sa_proj, gate_up]", grid)))
