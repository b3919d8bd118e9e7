"""Two experts in an MLP: what they compute, their roles, where they start, what is refused."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from expert_parts import MLPS, TINY
from made import SWEEP, write_sweep
from stage_parts import stage

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.config.sweep import load_sweep
from lmmcl.errors import UserError
from lmmcl.evaluation.probes.layer_contribution import parts_of
from lmmcl.ledger import Ledger
from lmmcl.methods.recipes.recipe import get_recipe
from lmmcl.models.experts import grow, grown, roles_in
from lmmcl.steps.count_trained import count_trained
from lmmcl.training.finetune import finetune
from lmmcl.weights.checkpoint import export, load_checkpoint


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path / "store"))


def test_in_training_experts_are_mixed_and_in_evaluation_the_likelier_answers() -> None:
    model = TINY.load_model()
    grow(model, MLPS[:1])
    layer = model.get_submodule(MLPS[0])
    frozen, tuned = layer.frozen, layer.tuned
    with torch.no_grad():
        layer.router.weight.normal_(generator=torch.Generator().manual_seed(0))
        for parameter in tuned.parameters():
            parameter += 0.05
    hidden = torch.randn(2, 7, 96, generator=torch.Generator().manual_seed(1))
    share = (hidden @ layer.router.weight.T).softmax(-1)
    mixed = share[..., :1] * frozen(hidden) + share[..., 1:] * tuned(hidden)
    torch.testing.assert_close(layer.train()(hidden), mixed, rtol=1e-4, atol=1e-5)
    alone = torch.where(share[..., 1:] > 0.5, tuned(hidden), frozen(hidden))
    torch.testing.assert_close(layer.eval()(hidden), alone)
    assert 0 < int((share[..., 1] > 0.5).sum()) < 14, "some tokens go to each"


def test_experts_have_the_roles_of_the_mlp_that_they_stand_in() -> None:
    model = TINY.load_model()
    grow(model, MLPS)
    assert roles_in(TINY, model)["model.language_model.layers.1.mlp.tuned.up_proj.weight"] == "llm.blocks.1.expert.up"
    assert parts_of(TINY, model)["mlp", 1] == MLPS[1]


def test_a_copy_of_a_grown_model_is_a_model_of_its_own() -> None:
    model = TINY.load_model()
    grow(model, MLPS)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.get_submodule(MLPS[0]).frozen.up_proj.weight.zero_()
        assert float(other.get_submodule(MLPS[0]).up_proj.weight.abs().max()) == 0
        assert float(model.get_submodule(MLPS[0]).up_proj.weight.abs().max()) > 0


def test_experts_above_tuned_mlps_start_as_these_are(ledger: Ledger) -> None:
    first = stage(recipe="mlp")
    second = stage(
        recipe={"name": "few", "adapter": {"kind": "moe", "targets": ["llm.blocks.last-1.mlp"]}}, parent=first
    )
    for step in (first, second):
        finetune(step, ledger, TrainingPlacement())
    one, two = (load_checkpoint(step, ledger, precision="fp32") for step in (first, second))
    assert grown(two) == MLPS[2:]
    name = "up_proj.weight"
    start = one.get_parameter(f"{MLPS[2]}.{name}")
    assert torch.equal(two.get_parameter(f"{MLPS[2]}.{name}"), start)
    assert 0 < float((two.get_parameter(f"{MLPS[2]}.tuned.{name}") - start).detach().abs().max()) < 0.02


def test_what_no_class_of_transformers_holds_is_not_exported(ledger: Ledger, tmp_path: Path) -> None:
    step = stage(recipe="moe")
    finetune(step, ledger, TrainingPlacement())
    with pytest.raises(UserError, match="two experts in 3 MLPs, and no class of transformers"):
        export(step, ledger, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_router_may_have_its_own_rate() -> None:
    recipe = get_recipe({"moe": {"learning_rates": {"llm.blocks.*.router": 1e-4}}})
    assert count_trained(recipe, TINY) == count_trained(get_recipe("moe"), TINY)
    assert count_trained(recipe, TINY).trained == 3 * (3 * 96 * 384 + 2 * 96)
    assert recipe.identity()["learning_rates"] == {"llm.blocks.*.router": 1e-4}


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ("recipe: [{moe: {targets: [llm.blocks.*.attention]}}]", "experts are whole MLPs such as"),
        ("recipe: [{moe: {targets: [llm.blocks.*.mlp.gate]}}]", "experts are whole MLPs such as"),
        ("recipe: [moe+gate_up]", "would train itself and have an adapter"),
        ("recipe: [moe], mitigation: [wise_ft]", "'moe' adds experts"),
    ],
)
def test_what_cannot_be_is_refused_at_the_door(tmp_path: Path, grid: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_sweep(write_sweep(tmp_path, SWEEP.replace("recipe: [sa_proj, gate_up]", grid)))
