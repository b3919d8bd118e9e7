"""A strategy divides a model among workers and changes nothing of what comes out; what was not applied is refused."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from group_parts import TOLERANCE, DieOnceDivided, apart, difference, losses, stage, two_cpus, updates
from ray.train import WorkerGroupError

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.methods import get_mitigation
from lmmcl.models import get_model
from lmmcl.training.distributed.strategies import (
    CheckStrategy,
    apply_liger,
    check_strategy,
    deepspeed_config,
    deepspeed_forgotten,
    describe,
    strategy_arguments,
)
from lmmcl.training.finetune import finetune
from lmmcl.training.stage_errors import StageError

pytestmark = pytest.mark.timeout(900)

SHORT = stage(recipe="sa_proj")


def zero(number: int, **more: Any) -> TrainingPlacement:
    return TrainingPlacement.model_validate({"workers": 1, "strategy": "deepspeed", "zero_stage": number, **more})


PLACES = {
    "single": TrainingPlacement(),
    "ddp": TrainingPlacement(workers=1),
    "two": TrainingPlacement(workers=2),
    "zero2": zero(2),
    "zero3": zero(3),
}


def test_a_placement_says_its_strategy_in_a_word() -> None:
    assert TrainingPlacement().strategy_name == "single"
    assert TrainingPlacement(workers=2).strategy_name == "ddp"
    assert zero(3).strategy_name == "zero3"


def test_switches_reach_the_trainer() -> None:
    told = strategy_arguments(TrainingPlacement(gradient_checkpointing=True, compile=True), torch.nn.Linear(1, 1))
    assert told["gradient_checkpointing"] and told["torch_compile"] and "deepspeed" not in told
    config = deepspeed_config(zero(3, offload="parameters"))
    assert config["zero_optimization"]["offload_param"] == {"device": "cpu"}
    assert config["zero_optimization"]["offload_optimizer"] == {"device": "cpu"}
    assert "offload_optimizer" not in deepspeed_config(zero(2))["zero_optimization"]


def test_fsdp_divides_by_the_layers_that_the_model_has() -> None:
    """The tiny model's vision tower has no pooling head, whose class transformers names anyway."""
    model = get_model("tiny-onevision").load_model()
    assert "SiglipMultiheadAttentionPoolingHead" in model._no_split_modules
    place = TrainingPlacement(workers=2, gpus_per_worker=1, strategy="fsdp")
    layers = strategy_arguments(place, model)["fsdp_config"]["transformer_layer_cls_to_wrap"]
    there = {type(module).__name__ for module in model.modules()}
    assert {"Qwen2DecoderLayer", "SiglipEncoderLayer"} <= set(layers) <= there


@pytest.mark.parametrize("named", [None, [], ["LayerOfAnotherModel"]])
def test_fsdp_is_refused_where_it_would_gather_the_model_as_one_piece(named: list[str] | None) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    model._no_split_modules = named  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"training\.strategy: fsdp .*Sequential does not say .* names (nothing|only)"):
        strategy_arguments(TrainingPlacement(workers=2, gpus_per_worker=1, strategy="fsdp"), model)


def test_after_a_stage_models_are_loaded_whole_again() -> None:
    """What transformers keeps of ZeRO 3 for its process would divide the next model that is loaded."""
    from transformers.integrations import deepspeed

    kept = deepspeed.HfDeepSpeedConfig(deepspeed_config(zero(3)))
    assert deepspeed.is_deepspeed_zero3_enabled()
    with deepspeed_forgotten():
        pass
    assert not deepspeed.is_deepspeed_zero3_enabled() and kept.is_zero3()


def test_a_mitigation_that_reads_what_is_divided_is_refused() -> None:
    penalty = stage(recipe="sa_proj", mitigation=get_mitigation({"l2_sp": {"weight": 1.0}}))
    check_strategy(penalty, zero(2))
    with pytest.raises(UserError, match=r"l2_sp reads weights.*zero3.*allowed with it"):
        check_strategy(penalty, zero(3))
    check_strategy(stage(), zero(3))


@pytest.mark.parametrize("number", [1, 2])
def test_a_penalty_on_weights_that_are_only_there_rounded_is_refused(number: int) -> None:
    """DeepSpeed keeps bf16 weights: what they have moved so far is mostly rounding, and the penalty would hold that."""
    l2_sp = get_mitigation({"l2_sp": {"weight": 1.0}})
    check_strategy(stage(recipe="sa_proj", mitigation=l2_sp, precision="bf16"), PLACES["two"])
    check_strategy(stage(recipe="sa_proj", mitigation=get_mitigation("lwf"), precision="bf16"), zero(number))
    with pytest.raises(
        UserError, match=rf"l2_sp .* zero{number} in bf16 gives each worker only rounded copies.*precision: fp32"
    ):
        check_strategy(stage(recipe="sa_proj", mitigation=l2_sp, precision="bf16"), zero(number))


def test_a_strategy_that_the_trainer_would_silently_drop_is_refused() -> None:
    hidden = TrainingPlacement.model_construct(**{**TrainingPlacement(workers=2).model_dump(), "strategy": "fsdp"})
    with pytest.raises(UserError, match="the Trainer would use DDP instead"):
        check_strategy(stage(), hidden)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (TrainingPlacement(workers=1), "requested ddp over 1 workers, but the Trainer applied single over 1"),
        (zero(3, workers=2), "requested zero3 over 2 workers, but the Trainer applied single over 1"),
    ],
)
def test_a_strategy_that_was_not_applied_ends_the_stage(asked: TrainingPlacement, said: str) -> None:
    trainer = types.SimpleNamespace(
        step=SHORT,
        taught=types.SimpleNamespace(config=types.SimpleNamespace(_attn_implementation="sdpa")),
        model_wrapped=torch.nn.Linear(1, 1),
        is_deepspeed_enabled=False,
        args=types.SimpleNamespace(world_size=1, device="cpu"),
    )
    assert describe(trainer, TrainingPlacement())["name"] == "single"
    with pytest.raises(StageError, match=said):
        CheckStrategy(trainer, asked).on_train_begin(None, None, None)  # type: ignore[arg-type]


def test_kernels_that_would_replace_nothing_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = types.ModuleType("liger_kernel.transformers.monkey_patch")
    kernels.MODEL_TYPE_TO_APPLY_LIGER_FN = {"qwen2_5_vl": print}  # type: ignore[attr-defined]
    for name in ("liger_kernel", "liger_kernel.transformers"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, kernels.__name__, kernels)
    asked = TrainingPlacement.model_construct(**{**TrainingPlacement().model_dump(), "liger": True})

    def trainer(model_type: str) -> Any:
        config = types.SimpleNamespace(model_type=model_type, _attn_implementation="sdpa")
        model = torch.nn.Linear(1, 1)
        return types.SimpleNamespace(
            step=stage(),
            taught=types.SimpleNamespace(config=config),
            model_wrapped=model,
            is_deepspeed_enabled=False,
            args=types.SimpleNamespace(world_size=1, device="cuda:0"),
        )

    assert describe(trainer("qwen2_5_vl"), asked)["liger"] is True
    loss = asked.model_copy(update={"liger": "loss"})
    assert describe(trainer("llava_onevision"), loss)["liger"] == "loss", "head and loss in one need no such kernels"
    with pytest.raises(StageError, match=r"no kernels for llava_onevision models; set liger: loss"):
        describe(trainer("llava_onevision"), asked)


def test_kernels_that_do_not_go_with_transformers_are_refused_with_what_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(model: Any, settings: dict[str, bool]) -> None:
        assert settings == {"fused_linear_cross_entropy": False}, "its forward passes compute all logits"
        raise ImportError("cannot import name 'X' from 'liger_kernel'")

    monkeypatch.setattr("transformers.integrations.liger.apply_liger_kernel", missing)
    model: Any = types.SimpleNamespace(config=types.SimpleNamespace(model_type="qwen2_5_vl"))
    with pytest.raises(UserError, match=r"no qwen2_5_vl kernels that go .*'X'.*; set liger: loss"):
        apply_liger(model)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with two_cpus(tmp_path_factory.mktemp("ray")):
        yield


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """Stages trained in one process without any strategy: two in a row, and one of eight updates."""
    ledger = Ledger(str(tmp_path_factory.mktemp("plain")))
    for step in (SHORT, stage(recipe="sa_proj", parent=SHORT), stage(recipe="sa_proj", max_steps=8)):
        finetune(step, ledger, TrainingPlacement())
    return ledger


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(("number", "recipe"), [(2, "llm"), (3, "sa_proj")], ids=["head trains", "divided head stays"])
def test_lwf_under_zero_is_that_of_one_process(number: int, recipe: str, tmp_path: Path) -> None:
    """A head that trains is whole under ZeRO 2; one that stays and is divided by ZeRO 3 is run from a copy."""
    step = stage(mitigation=get_mitigation({"lwf": {"weight": 4.0}}), recipe=recipe)
    one, divided = Ledger(str(tmp_path / "one")), Ledger(str(tmp_path / "divided"))
    finetune(step, one, TrainingPlacement())
    record = finetune(step, divided, zero(number, workers=2))
    assert record["mitigation"]["head"] == "copied"
    assert losses(step, divided) == pytest.approx(losses(step, one), rel=1e-3)
    assert difference(step, one, divided) < TOLERANCE


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(("number", "workers"), [(1, 2), (2, 1), (3, 1), (2, 2), (3, 2)])
def test_zero_trains_the_same_weights_and_says_so(plain: Ledger, number: int, workers: int, tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    record = finetune(SHORT, ledger, zero(number, workers=workers))
    assert record["strategy"]["name"] == f"zero{number}"
    assert (record["strategy"]["workers"], record["strategy"]["backend"]) == (workers, "gloo")
    before = plain.find(SHORT)
    assert before is not None
    assert record["proof"] == before["proof"], "the same tensors moved, all others are bit-identical"
    assert record["checkpoint_bytes"] == before["checkpoint_bytes"]
    assert difference(SHORT, plain, ledger) < TOLERANCE
    assert losses(SHORT, ledger) == pytest.approx(losses(SHORT, plain), rel=1e-3)


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("first", "then"),
    [("zero3", "single"), ("single", "zero3"), ("zero3", "ddp"), ("ddp", "zero2")],
    ids=lambda value: value,
)
def test_what_one_strategy_saved_another_goes_on_from(first: str, then: str, plain: Ledger, tmp_path: Path) -> None:
    ledger, after = Ledger(str(tmp_path)), stage(recipe="sa_proj", parent=SHORT)
    finetune(SHORT, ledger, PLACES[first])
    record = finetune(after, ledger, PLACES[then])
    assert record["strategy"]["name"] == then
    assert losses(after, ledger) == pytest.approx(losses(after, plain), rel=1e-3)
    assert difference(after, plain, ledger) < 2 * TOLERANCE


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_zero_offloads_the_optimizer_and_accumulates_in_half_precision(tmp_path: Path) -> None:
    ledger, step = Ledger(str(tmp_path)), stage(recipe="sa_proj", precision="bf16")
    record = finetune(step, ledger, zero(2, offload="optimizer", micro_batch_size=2, gradient_checkpointing=True))
    assert record["strategy"]["offload"] == "optimizer" and record["strategy"]["gradient_checkpointing"]
    whole = Ledger(str(tmp_path / "whole"))
    finetune(step, whole, TrainingPlacement())
    assert difference(step, whole, ledger) < 8e-3, "a unit in the last place of bf16 at 1, and two roundings"


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(("number", "workers"), [(2, 1), (3, 1), (3, 2)])
def test_a_divided_stage_goes_on_from_its_last_checkpoint(
    number: int, workers: int, plain: Ledger, tmp_path: Path
) -> None:
    ledger, diary = Ledger(str(tmp_path / "store")), tmp_path / "diary"
    step = stage(recipe="sa_proj", mitigation=DieOnceDivided(diary=str(diary)), max_steps=8)
    record = finetune(step, ledger, zero(number, workers=workers, save_every=3, max_failures=1))
    assert record["updates"] == 8
    assert updates(diary) == 5 + 5, "updates 1 to 5, then 4 to 8"
    assert apart(step, ledger, stage(recipe="sa_proj", max_steps=8), plain) < TOLERANCE


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("first", "then", "made"), [("zero2", "ddp", 5 + 8), ("ddp", "zero2", 5 + 8), ("ddp", "two", 10)]
)
def test_a_stage_that_another_strategy_takes_over_goes_on_only_from_what_it_can_read(
    first: str, then: str, made: int, plain: Ledger, tmp_path: Path
) -> None:
    ledger, diary = Ledger(str(tmp_path / "store")), tmp_path / "diary"
    step = stage(recipe="sa_proj", mitigation=DieOnceDivided(diary=str(diary)), max_steps=8)
    with pytest.raises(WorkerGroupError):
        finetune(step, ledger, PLACES[first].model_copy(update={"save_every": 3, "max_failures": 0}))
    finetune(step, ledger, PLACES[then].model_copy(update={"save_every": 3}))
    assert updates(diary) == made
    assert apart(step, ledger, stage(recipe="sa_proj", max_steps=8), plain) < TOLERANCE
