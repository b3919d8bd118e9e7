"""Half of a fused tensor trains alone: the other half stays, bit for bit, through decay, deltas, later stages and merges."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from models.small_families import language, llava, save
from stage_parts import stage, weights

from lmmcl.config.cluster import Cluster, TrainingPlacement
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.methods import get_mitigation
from lmmcl.methods.divided import DIVIDED
from lmmcl.models import get_model
from lmmcl.models.partition.fused import Piece, Slice, parse_key
from lmmcl.models.roles import check_whole
from lmmcl.planning.fits import check_stage
from lmmcl.steps import Merge, Pretrained, Snapshot, strategy_fit
from lmmcl.steps.count_trained import count_trained
from lmmcl.steps.strategy_fit import check_strategy_fit, fused_in_part
from lmmcl.training.finetune import finetune
from lmmcl.training.stage.trainable import TrainableModel
from lmmcl.weights.chain import tensors_of
from lmmcl.weights.checkpoint import ensure_pretrained
from lmmcl.weights.merging import merge

GATE = {"name": "gate", "train": ["llm.blocks.*.mlp.gate"]}
UP = {"name": "up", "train": ["llm.blocks.*.mlp.up"]}
KEYS = {"name": "keys", "train": ["llm.blocks.*.attention.k"]}
FUSED = "model.language_model.layers.{}.mlp.gate_up_proj.weight"
WIDE = 96


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pretrained]:
    """LLaVA on Phi-3, which holds queries, keys and values in one tensor, gate and up in another."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    config, processor = llava()
    config["text_config"] = language(processor.tokenizer, "phi3")
    yield Pretrained(get_model(str(save(tmp_path_factory.mktemp("phi3") / "llava-phi3", config, processor))))
    patch.undo()


@pytest.fixture
def ledger(base: Pretrained, tmp_path: Path) -> Ledger:
    ledger = Ledger(str(tmp_path / "store"))
    ensure_pretrained(base, ledger)
    return ledger


def taught(ledger: Ledger, parent: Any, recipe: Any, **more: Any) -> tuple[Any, dict[str, Any]]:
    step = stage(parent=parent, recipe=recipe, learning_rate=1e-2, max_steps=2, **more)
    return step, finetune(step, ledger, TrainingPlacement())


def halves(ledger: Ledger, step: Any) -> tuple[torch.Tensor, torch.Tensor]:
    tensor = weights(step, ledger)[FUSED.format(0)]
    return tensor[:WIDE], tensor[WIDE:]


def test_the_slice_moves_and_the_rest_of_the_tensor_is_bit_identical(base: Pretrained, ledger: Ledger) -> None:
    step, record = taught(ledger, base, GATE, weight_decay=0.5)
    (gate, up), (gate_before, up_before) = halves(ledger, step), halves(ledger, base)
    assert torch.equal(up, up_before) and not torch.equal(gate, gate_before)
    assert record["trained_parameters"] == count_trained(step.recipe, base.model).trained == 2 * WIDE * 48
    assert record["proof"]["unmoved"] == []
    with tensors_of(step, ledger) as chain:
        assert {parse_key(key) for key in chain} == {
            (FUSED.format(block), Slice((Piece(0, 2 * WIDE, 0, WIDE),))) for block in range(2)
        }
        assert all(chain[key].shape == (WIDE, 48) for key in chain)


def test_weight_decay_shrinks_the_slice_as_it_shrinks_a_whole_tensor(base: Pretrained, ledger: Ledger) -> None:
    alone, _ = taught(ledger, base, GATE, weight_decay=0.5, adam_epsilon=1e6)  # only the decay is left of an update
    whole, _ = taught(ledger, base, "gate_up", weight_decay=0.5, adam_epsilon=1e6)
    torch.testing.assert_close(halves(ledger, alone)[0], halves(ledger, whole)[0], rtol=1e-6, atol=0)
    assert torch.equal(halves(ledger, alone)[1], halves(ledger, base)[1])


def test_stages_lay_slices_and_whole_tensors_over_each_other(base: Pretrained, ledger: Ledger) -> None:
    first, _ = taught(ledger, base, GATE)
    second, _ = taught(ledger, first, UP)
    assert torch.equal(halves(ledger, second)[0], halves(ledger, first)[0])
    third, _ = taught(ledger, second, "gate_up")
    fourth, _ = taught(ledger, third, GATE)
    assert torch.equal(halves(ledger, fourth)[1], halves(ledger, third)[1])
    assert not torch.equal(halves(ledger, fourth)[0], halves(ledger, third)[0])
    with tensors_of(fourth, ledger) as chain:
        start = weights(base, ledger)[FUSED.format(0)]
        assert torch.equal(chain.value(FUSED.format(0), start), torch.cat(halves(ledger, fourth)))


def test_a_snapshot_holds_the_slice_as_the_stage_does(base: Pretrained, ledger: Ledger) -> None:
    plain = stage(parent=base, recipe=GATE, learning_rate=1e-2, max_steps=2, warmup_ratio=0)
    step = dataclasses.replace(plain, snapshots=(1,))
    finetune(step, ledger, TrainingPlacement())
    with tensors_of(Snapshot(step, 1), ledger) as one, tensors_of(step, ledger) as other:
        assert list(one) == list(other) and all("[0:0+96/192]" in key for key in one)
    assert torch.equal(halves(ledger, Snapshot(step, 1))[1], halves(ledger, base)[1])


def test_keys_of_a_joined_projection_train_alone(base: Pretrained, ledger: Ledger) -> None:
    step, record = taught(ledger, base, KEYS)
    name = "model.language_model.layers.1.self_attn.qkv_proj.weight"
    before, after = weights(base, ledger)[name], weights(step, ledger)[name]
    moved = (before != after).any(dim=1).nonzero().flatten().tolist()
    assert moved == list(range(48, 72)) and record["trained_parameters"] == 2 * 24 * 48


def test_slices_are_merged_like_other_weights(base: Pretrained, ledger: Ledger) -> None:
    step, _ = taught(ledger, base, GATE)
    mean = Merge(base, (step,), get_mitigation({"wise_ft": {"alpha": 0.5}}))
    merge(mean, ledger)
    (gate, up), (tuned, _), (start, up_before) = (halves(ledger, each) for each in (mean, step, base))
    torch.testing.assert_close(gate, (tuned + start) / 2)
    assert torch.equal(up, up_before)


def test_a_gradient_that_reached_the_frozen_slice_would_be_found(
    base: Pretrained, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainableModel, "mask_gradients", lambda self: None)
    with pytest.raises(UserError, match=r"frozen tensors changed: .*gate_up_proj.weight\[0:96\+96/192\]"):
        taught(ledger, base, GATE)


def test_parts_that_cannot_be_divided_train_together_or_not_at_all() -> None:
    roles = ["llm.blocks.0.attention.k+v"]
    check_whole(["llm.blocks.*.attention"], roles, model="m")
    check_whole(["llm.blocks.*.attention.k", "llm.blocks.*.attention.v"], roles, model="m")
    with pytest.raises(UserError, match=r"attention.k and .*attention.v are one tensor in m that cannot be divided"):
        check_whole(["llm.blocks.*.attention.v", "llm.blocks.*.attention.o"], roles, model="m")


@pytest.mark.parametrize("recipe", [GATE, KEYS], ids=["gate", "keys"])
def test_a_strategy_that_divides_tensors_is_refused_before_anything_is_loaded(base: Pretrained, recipe: Any) -> None:
    step = stage(parent=base, recipe=recipe)
    check_strategy_fit(step, "ddp")
    for strategy in DIVIDED:
        with pytest.raises(UserError, match=rf"slices of 2 fused tensors .*{strategy} .*allowed: ddp, or a recipe"):
            check_strategy_fit(step, strategy)
        check_strategy_fit(stage(parent=base, recipe="gate_up"), strategy)


def test_a_plan_under_zero_refuses_slices(base: Pretrained) -> None:
    cluster = Cluster.model_validate({"training": {"workers": 2, "strategy": "deepspeed", "zero_stage": 2}})
    with pytest.raises(UserError, match="fused tensors"):
        check_stage(stage(parent=base, recipe=GATE), cluster)


def test_models_that_fuse_nothing_are_not_looked_at_with_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategy_fit, "meta_of", None)
    assert fused_in_part(stage(recipe=GATE).recipe, get_model("llava-1.5-7b")) == ()
    assert fused_in_part(stage(recipe="sa_qkv").recipe, get_model("qwen3.5-9b")) == ()


def test_a_shipped_inventory_tells_which_of_its_models_tensors_are_fused() -> None:
    found = fused_in_part(stage(recipe=KEYS).recipe, get_model("qwen3.5-9b"))
    assert len(found) == 24 and all(name.endswith("linear_attn.in_proj_qkv.weight") for name in found)


def test_an_adapter_of_half_a_layer_is_refused(base: Pretrained, ledger: Ledger) -> None:
    half = {"name": "half", "adapter": {"rank": 4, "targets": ["llm.blocks.*.mlp.gate"]}}
    with pytest.raises(UserError, match=r"mlp.gate and .*mlp.up are one layer here; target all of them"):
        count_trained(stage(parent=base, recipe=half).recipe, base.model)
    step, record = taught(ledger, base, {"lora": {"rank": 4}})
    assert record["trained_parameters"] == count_trained(step.recipe, base.model).trained
