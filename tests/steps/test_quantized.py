"""What goes over quantised weights, and what is refused when a sweep is planned: place, reason, remedy; and what enters keys."""

from __future__ import annotations

from typing import Any

import pytest

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.config.settings import Training
from lmmcl.config.sweep import Sweep, build_sweep
from lmmcl.errors import UserError
from lmmcl.methods.mitigation import MergeMitigation
from lmmcl.models import get_model
from lmmcl.models.inputs.model_settings import ModelSettings
from lmmcl.models.quantized.base_settings import BaseSettings
from lmmcl.planning import fits
from lmmcl.planning.inputs import missing_inputs
from lmmcl.registry import members
from lmmcl.steps.optimizers import check_optimizer_package, check_placed_optimizer
from lmmcl.steps.quantized import (
    check_quantized_engine,
    check_quantized_strategy,
    dequantized_bytes,
    quantized_shapes,
    weight_bytes,
)

NF4 = {"quantize": "nf4"}
QLORA: Any = {"qlora": {"rank": 8}}
LORA: Any = {"lora_all": {"rank": 8}}


def sweep(recipe: list[Any], *, more: dict[str, Any] | None = None, **axes: Any) -> Sweep:
    return build_sweep(
        {
            "name": "small",
            "orders": {"main": ["counting", "clock"]},
            "benchmarks": {"held_out": ["colour"]},
            "training": {"examples": 64, "global_batch_size": 32, "precision": "fp32"},
            "evaluation": {"precision": "fp32", "limit": 8},
            "grids": [{"model": ["tiny-onevision"], "recipe": recipe, **axes}],
            **(more or {}),
        }
    )


def quantised(name: str = "tiny-onevision", **settings: Any) -> Any:
    return get_model(name).with_settings(ModelSettings(base=BaseSettings(quantize="nf4", **settings)))


def test_a_base_in_the_recipe_and_one_of_the_model_are_the_same_trial() -> None:
    by_recipe = sweep([QLORA]).trials[0]
    by_model = sweep([LORA], more={"models": {"tiny-onevision": {"base": NF4}}}).trials[0]
    assert by_recipe.key == by_model.key
    assert by_recipe.steps().keys() == by_model.steps().keys()
    assert by_recipe.axes["recipe"] == "qlora(rank=8)"
    assert sweep([{"lora_all": {"rank": 8, "base": NF4}}]).trials[0].key == by_recipe.key


def test_it_enters_every_key_and_only_where_it_is_set() -> None:
    plain, held = (sweep([recipe]).trials[0].steps() for recipe in (LORA, QLORA))
    assert len(plain) == len(held) and not plain.keys() & held.keys()
    both = sweep([LORA, QLORA])
    assert both.steps.keys() == plain.keys() | held.keys()
    other = sweep([{"qlora": {"rank": 8, "base": {**NF4, "double_quant": False}}}]).trials[0]
    assert not other.steps().keys() & held.keys()
    assert "base" not in str(sweep([LORA]).trials[0].model.identity())


def test_the_optimizer_enters_a_key_only_where_it_is_set() -> None:
    plain, same, other = (
        sweep([LORA], **axes).trials[0].key for axes in ({}, {"optimizer": ["adamw"]}, {"optimizer": ["adamw_8bit"]})
    )
    assert plain == same != other
    assert "optimizer" not in Training().identity() and Training(optimizer="adamw_8bit").identity()["optimizer"]


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        (
            {"sa_proj": {"base": NF4}},
            r"'sa_proj\(base=nf4\)': trains llm.blocks.\*.attention.k, .* cannot change",
        ),
        ({"full": {"base": NF4}}, "cannot change. Use a LoRA"),
        ({"moe": {"base": NF4}}, "moe needs unquantised weights.*LoRA"),
        ({"moelora": {"rank": 8, "base": NF4}}, "moelora needs unquantised weights"),
        ({"osf": {"base": NF4}}, "osf needs unquantised weights.*remove `base`"),
        ({"lora": {"rank": 8, "dora": True, "base": NF4}}, "dora rescales the rows.*rslora works"),
        ({"lora": {"rank": 8, "base": {**NF4, "layers": ["llm.norm"]}}}, "no linear layer under llm.norm"),
        (
            {"lora": {"rank": 8, "base": {"quantize": "int8"}}},
            "lora.base: quantize: unknown value 'int8'.*allowed: nf4",
        ),
        ({"lora": {"rank": 8, "base": "nf4"}}, r"a mapping such as \{quantize: nf4\}, not 'nf4'"),
        ({"lora": {"rank": 8, "base": {"quantise": "nf4"}}}, "quantise.*did you mean 'quantize'"),
    ],
    ids=str,
)
def test_what_would_change_quantised_weights_is_refused(recipe: Any, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as refused:
        sweep([QLORA, recipe])
    assert "grids[0].recipe[1]" in str(refused.value)


def test_what_lies_outside_the_quantised_layers_may_train_itself() -> None:
    assert sweep([{"name": "seen", "train": ["projector", "vision"], "base": NF4}]).trials
    assert sweep([{"name": "both", "train": ["projector"], "adapter": {"rank": 4}, "base": NF4}]).trials


MERGES = [name for name, kind in members("lmmcl.methods", "MITIGATIONS").items() if issubclass(kind, MergeMitigation)]
REQUIRED = {"wise_ft": {"alpha": 0.5}}


@pytest.mark.parametrize("name", MERGES)
def test_merges_are_refused_with_what_to_do_instead(name: str) -> None:
    with pytest.raises(UserError, match=rf"grids\[0\]\.mitigation: {name} merges weights.*lmmcl export"):
        sweep([QLORA], mitigation=[{name: REQUIRED.get(name, {})}])


def test_fp16_is_refused_in_training_and_in_evaluation() -> None:
    with pytest.raises(UserError, match=r"training\.precision: .*bf16, fp32"):
        sweep([QLORA], precision=["fp16"])
    with pytest.raises(UserError, match=r"evaluation\.precision: "):
        sweep([QLORA], more={"evaluation": {"precision": "fp16"}})


def test_all_stages_of_a_trial_have_one_base() -> None:
    with pytest.raises(UserError, match=r"per_stage\.1\.recipe: recipe qlora.*: its base is nf4.*not quantised"):
        sweep([LORA], more={"per_stage": {1: {"recipe": QLORA}}})
    mixed = sweep([QLORA], more={"per_stage": {1: {"recipe": {"lora_attention": {"rank": 4}}}}}).trials[0]
    assert mixed.model.settings.base is not None
    assert mixed.settings[1].recipe.adapter != mixed.settings[2].recipe.adapter
    with pytest.raises(UserError, match=r"recipe\[0\]: .*its base is nf4, and `models:` sets nf4 double_quant False"):
        sweep([QLORA], more={"models": {"tiny-onevision": {"base": {**NF4, "double_quant": False}}}})


def test_strategies_that_divide_weights_and_other_engines_are_refused() -> None:
    for strategy in ("zero1", "zero2", "zero3", "fsdp"):
        with pytest.raises(UserError, match="4-bit codes are not; allowed: ddp"):
            check_quantized_strategy(quantised(), strategy)
        check_quantized_strategy(get_model("tiny-onevision"), strategy)
    check_quantized_strategy(quantised(), "ddp")
    with pytest.raises(UserError, match="engine: transformers"):
        check_quantized_engine(quantised(), "vllm")


def test_an_optimizer_of_bitsandbytes_is_refused_where_it_cannot_run() -> None:
    paged, small = Training(optimizer="paged_adamw_8bit"), Training(optimizer="adamw_8bit")
    with pytest.raises(
        UserError, match=r"training\.optimizer: paged_adamw_8bit moves its states.*a CPU; allowed there: adamw"
    ):
        check_placed_optimizer(paged, TrainingPlacement())
    check_placed_optimizer(paged, TrainingPlacement(gpus_per_worker=1))
    check_placed_optimizer(small, TrainingPlacement())
    divided = TrainingPlacement(workers=2, strategy="deepspeed", zero_stage=2)
    with pytest.raises(UserError, match=r"zero2 divides the optimizer's states.*strategy: ddp"):
        check_placed_optimizer(small, divided)
    check_placed_optimizer(Training(), divided)
    for mitigation in ("mofo", "spider"):
        with pytest.raises(UserError, match=f"training.optimizer: {mitigation} reads AdamW's states"):
            sweep([LORA], mitigation=[mitigation], optimizer=["adamw_8bit"])


def test_a_run_says_beforehand_which_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = sweep([QLORA], optimizer=["adamw_8bit"]).trials
    assert not missing_inputs(trials)
    monkeypatch.setattr("lmmcl.models.quantized.base_settings.find_spec", lambda name: None)
    told = [str(error) for error in missing_inputs(trials)]
    assert len(told) == 2 and all('pip install "lmmcl[bitsandbytes]"' in each for each in told)
    assert told[0].startswith("base: {quantize: nf4}") and "optimizer: adamw_8bit" in told[1]
    check_optimizer_package(Training())
    assert not missing_inputs(sweep([LORA]).trials)


def test_a_plan_knows_the_bytes_of_4_bit_weights() -> None:
    plain, held = get_model("qwen2.5-vl-3b"), quantised("qwen2.5-vl-3b")
    layers = [rows * columns for shapes in quantized_shapes(held).values() for rows, columns in shapes]
    counts = plain.role_counts()
    blocks = sum(n for role, n in counts.items() if role.startswith("llm.blocks."))
    assert 0.99 * blocks < sum(layers) <= blocks  # the rest are biases and norms
    assert weight_bytes(plain, "bf16") == 2 * sum(counts.values())
    saved = weight_bytes(plain, "bf16") - weight_bytes(held, "bf16")
    assert saved == pytest.approx((16 - 4.127) / 8 * sum(layers), rel=1e-3)
    single = quantised("qwen2.5-vl-3b", double_quant=False)
    assert weight_bytes(single, "bf16") - weight_bytes(held, "bf16") == pytest.approx(0.373 / 8 * sum(layers), rel=1e-2)
    assert dequantized_bytes(held, "bf16") == 2 * max(layers) and dequantized_bytes(plain, "bf16") == 0


def test_a_plan_estimates_less_memory_for_it() -> None:
    model, recipe = "qwen2.5-vl-7b", {"rank": 8}
    sizes = {}
    for name in ("lora_all", "qlora"):
        step = _first(sweep_of(model, {name: recipe}))
        sizes[name] = fits.stage_memory(step, TrainingPlacement(gpus_per_worker=1, micro_batch_size=1))
    saved = sizes["lora_all"].weights - sizes["qlora"].weights
    assert 9e9 < saved < 10.5e9
    step = _first(sweep_of(model, {"qlora": recipe}, optimizer=["adamw_8bit"]))
    small = fits.stage_memory(step, TrainingPlacement(gpus_per_worker=1, micro_batch_size=1))
    assert small.optimizer == pytest.approx(sizes["qlora"].optimizer * (2 + 1 / 32) / 8, rel=1e-6)


def sweep_of(model: str, recipe: Any, **axes: Any) -> Sweep:
    return build_sweep(
        {
            "name": "large",
            "orders": {"main": ["counting"]},
            "benchmarks": {"held_out": ["colour"]},
            "training": {"precision": "bf16"},
            "grids": [{"model": [model], "recipe": [recipe], **axes}],
        }
    )


def _first(made: Sweep) -> Any:
    return made.trials[0].stages[1].tuned
