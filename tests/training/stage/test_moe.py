"""Two experts in an MLP: equal to the base before training, one tuned expert over all stages, stored and loaded."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from made import SWEEP, write_sweep
from stage_parts import BASE, made_skill, shades, stage

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.config.sweep import load_sweep
from lmmcl.errors import UserError
from lmmcl.evaluation.probes.layer_contribution import parts_of
from lmmcl.ledger import Ledger
from lmmcl.methods.recipes.recipe import get_recipe
from lmmcl.models import get_model
from lmmcl.models.experts import grow, grown, roles_in
from lmmcl.models.processing.encode import encode
from lmmcl.models.processing.padding import pad
from lmmcl.models.roles import summary
from lmmcl.steps import Finetune
from lmmcl.steps.count_trained import count_trained
from lmmcl.training.finetune import finetune
from lmmcl.weights.chain import tensors_of
from lmmcl.weights.checkpoint import ensure_pretrained, export, load_checkpoint, named_tensors

TINY = get_model("tiny-onevision")
MLPS = [f"model.language_model.layers.{n}.mlp" for n in range(3)]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path / "store"))


def logits(model: Any, lmm: Any = TINY) -> torch.Tensor:
    processor = lmm.load_processor()
    batch = pad(processor, [encode(processor, example, with_answer=True) for example in shades(3)])
    batch.pop("labels")
    with torch.no_grad():
        return model(**batch).logits


@pytest.mark.parametrize("name", ["tiny-onevision", "tiny-next", "tiny-qwen"])
def test_before_training_the_model_is_the_base_in_training_and_in_evaluation(name: str) -> None:
    lmm = get_model(name)
    model = lmm.load_model()
    expected = logits(model, lmm)
    grow(model, MLPS)
    assert grown(model) == MLPS
    assert torch.equal(logits(model, lmm), expected)
    assert torch.equal(logits(model.train(), lmm), expected)


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


def test_the_partition_of_roles_stays_total() -> None:
    model = TINY.load_model()
    plain = TINY.roles_of(name for name, _ in model.named_parameters())
    grow(model, MLPS)
    roles = roles_in(TINY, model)
    assert set(roles) == {name for name, _ in model.named_parameters()}
    assert {name: roles[name] for name in plain} == plain
    new = {"llm.blocks.*.expert.gate", "llm.blocks.*.expert.up", "llm.blocks.*.expert.down", "llm.blocks.*.router"}
    assert set(summary(roles[name] for name in roles.keys() - plain.keys())) == new
    assert roles["model.language_model.layers.1.mlp.tuned.up_proj.weight"] == "llm.blocks.1.expert.up"
    assert parts_of(TINY, model)["mlp", 1] == MLPS[1]


def test_a_copy_of_a_grown_model_is_a_model_of_its_own() -> None:
    model = TINY.load_model()
    grow(model, MLPS)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.get_submodule(MLPS[0]).frozen.up_proj.weight.zero_()
        assert float(other.get_submodule(MLPS[0]).up_proj.weight.abs().max()) == 0
        assert float(model.get_submodule(MLPS[0]).up_proj.weight.abs().max()) > 0


def two_stages(ledger: Ledger, **more: Any) -> tuple[Finetune, Finetune]:
    first = stage(recipe="moe", learning_rate=3e-3, max_steps=8, **more)
    again = made_skill("again", shades(green=200))
    second = stage(recipe="moe", learning_rate=3e-3, max_steps=8, parent=first, skill=again, **more)
    return first, second


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_tuned_expert_trains_over_all_stages(precision: str, ledger: Ledger) -> None:
    first, second = two_stages(ledger, precision=precision)
    planned = count_trained(get_recipe("moe"), TINY)
    for step in (first, second):
        record = finetune(step, ledger, TrainingPlacement())
        assert record["trained_parameters"] == planned.trained == planned.changed
        assert record["proof"]["moved"] + len(record["proof"]["unmoved"]) == 3 * (3 + 1)
    base = named_tensors(TINY.load_model(precision=precision))
    one, two = (load_checkpoint(step, ledger, precision=precision) for step in (first, second))
    assert grown(one) == grown(two) == MLPS
    after_one, after_two = named_tensors(one), named_tensors(two)
    assert after_one.keys() == after_two.keys()
    assert all(torch.equal(base[name], tensors[name]) for tensors in (after_one, after_two) for name in base)
    moved = {name for name in after_one if not torch.equal(after_one[name], after_two[name])}
    assert moved and moved <= {name for name in after_one if ".tuned." in name or ".router." in name}
    assert any(".router." in name for name in moved) and any(".tuned." in name for name in moved)
    assert not torch.equal(logits(two), logits(one))


def test_a_checkpoint_that_is_read_back_has_its_experts(ledger: Ledger) -> None:
    first, second = two_stages(ledger)
    for step in (first, second):
        finetune(step, ledger, TrainingPlacement())
    ensure_pretrained(BASE, ledger)
    recorded = ledger.checkpoint(second.key)
    model = load_checkpoint(recorded, ledger, precision="fp32")
    assert torch.equal(logits(model), logits(load_checkpoint(second, ledger, precision="fp32")))
    with tensors_of(second, ledger) as chain:
        assert chain.experts == MLPS


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


def test_the_same_stage_gives_the_same_experts_after_a_kill(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def die(shown: dict[str, Any]) -> None:
        if shown["update"] == 3:
            raise Killed

    whole, killed = Ledger(str(tmp_path / "whole")), Ledger(str(tmp_path / "killed"))
    step, placement = stage(recipe="moe"), TrainingPlacement(save_every=2)
    finetune(step, whole, placement)
    with pytest.raises(Killed):
        finetune(step, killed, placement, progress=die)
    finetune(step, killed, placement)
    one, other = (named_tensors(load_checkpoint(step, ledger, precision="fp32")) for ledger in (whole, killed))
    assert all(torch.equal(one[name], other[name]) for name in one)


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
