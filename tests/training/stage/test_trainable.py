"""LoRA and its relatives from a fresh adapter to merged weights: what trains, what stays, what is recorded."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from killed_stage import finetune_killed_once
from stage_parts import BASE, difference, made_skill, shades, stage, weights

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.methods.mitigation import TrainingMitigation
from lmmcl.methods.recipes.recipe import get_recipe
from lmmcl.models import get_model
from lmmcl.models.processing.encode import encode
from lmmcl.models.processing.padding import pad
from lmmcl.steps import Pretrained
from lmmcl.steps.count_trained import count_trained
from lmmcl.training.attaching.attach import attach
from lmmcl.training.finetune import finetune
from lmmcl.training.stage.adapter_names import earlier_adapters
from lmmcl.training.stage.trainable import Adapted
from lmmcl.training.stage_errors import StageError
from lmmcl.weights.chain import tensors_of
from lmmcl.weights.checkpoint import load_checkpoint, named_tensors

LORA8: dict[str, Any] = {"lora": {"rank": 8, "alpha": 16}}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path / "store"))


def adapted(recipe: Any, parent: Any = BASE) -> Adapted:
    trainable_model = attach(stage(recipe=recipe, parent=parent), parent.model.load_model())
    assert isinstance(trainable_model, Adapted)
    return trainable_model


def shake(trainable_model: Adapted, size: float = 0.02) -> None:
    noise = torch.Generator().manual_seed(0)
    own = dict(trainable_model.model.named_parameters())
    with torch.no_grad():
        for name in trainable_model.added:
            own[name] += size * torch.randn(own[name].shape, generator=noise)


def logits(model: Any, lmm: Any) -> torch.Tensor:
    processor = lmm.load_processor()
    batch = pad(processor, [encode(processor, example, with_answer=True) for example in shades(3)])
    batch.pop("labels")
    model.eval()
    with torch.no_grad():
        return model(**batch).logits


@pytest.mark.parametrize("model", ["tiny-onevision", "tiny-next", "tiny-qwen"])
@pytest.mark.parametrize(
    "recipe",
    [
        LORA8,
        {"lora_all": {"rank": 4, "alpha": 16, "rslora": True}},
        {"lora": {"rank": 4, "dora": True}},
        {"name": "seen", "adapter": {"rank": 4, "targets": ["vision", "projector"]}},
        "osf",
    ],
    ids=str,
)
def test_merged_weights_compute_what_the_adapters_did(model: str, recipe: Any, tmp_path: Path) -> None:
    lmm = get_model(model)
    trainable_model = adapted(recipe, parent=Pretrained(lmm))
    plain = lmm.load_model()
    before = {name: tensor.clone() for name, tensor in named_tensors(plain).items()}
    torch.testing.assert_close(logits(trainable_model.model, lmm), logits(plain, lmm), rtol=1e-4, atol=1e-4)
    shake(trainable_model)
    if trainable_model.after_update:
        trainable_model.after_update()
    moved = logits(trainable_model.model, lmm)
    assert float((moved - logits(plain, lmm)).abs().max()) > 1e-2
    trainable_model.merge_adapters(_digests(plain), tmp_path)
    torch.testing.assert_close(logits(trainable_model.model, lmm), moved, rtol=1e-3, atol=1e-3)
    after = named_tensors(trainable_model.model)
    assert list(after) == list(before), "the structure is as it was"
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == set(trainable_model.targets) and changed


def _digests(model: Any) -> dict[str, str]:
    from lmmcl.weights.fast_digest import fast_digests

    return fast_digests(named_tensors(model))


def test_the_settings_reach_the_layers() -> None:
    def layer(**settings: Any) -> Any:
        trainable_model = adapted({"lora": {"rank": 4, "alpha": 16, **settings}})
        return trainable_model.model.get_submodule("model.language_model.layers.0.mlp.gate_proj")

    plain = layer(dropout=0.25)
    assert plain.scaling["default"] == 16 / 4 and plain.lora_dropout["default"].p == 0.25
    assert plain.lora_A["default"].weight.shape == (4, 96) and not plain.lora_variant
    assert layer(rslora=True).scaling["default"] == 16 / 4**0.5
    assert "default" in layer(dora=True).lora_magnitude_vector


@pytest.mark.parametrize("recipe", ["osf", LORA8, {"lora_all": {"rank": 4, "dora": True}}], ids=str)
def test_as_many_parameters_train_as_the_plan_says(recipe: Any, ledger: Ledger) -> None:
    step = stage(recipe=recipe)
    record = finetune(step, ledger, TrainingPlacement())
    planned = count_trained(get_recipe(recipe), step.model)
    assert record["trained_parameters"] == record["adapter"]["parameters"] == planned.trained
    with tensors_of(step, ledger) as chain:
        own = named_tensors(step.model.load_model())
        assert sum(own[name].numel() for name in chain.tensors) == planned.changed
    headers = 600 * record["adapter"]["layers"]  # which weigh something in a model as small as this one
    assert planned.stage_bytes("fp32") < record["checkpoint_bytes"] <= planned.stage_bytes("fp32") + headers
    assert record["total_parameters"] == sum(step.model.role_counts().values())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stage_of_lora_changes_the_targeted_tensors_and_no_other(precision: str, ledger: Ledger) -> None:
    step = stage(recipe=LORA8, precision=precision, learning_rate=1e-2)
    record = finetune(step, ledger, TrainingPlacement())
    before, after = (named_tensors(load_checkpoint(each, ledger, precision=precision)) for each in (BASE, step))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if ".language_model." in name and ".mlp." in name}
    assert record["proof"] == {"frozen": len(before) - len(changed), "moved": len(changed), "unmoved": []}
    assert {after[name].dtype for name in changed} == {before[name].dtype for name in changed}
    for name in changed:  # of low rank, up to the rounding of the merged weight
        if precision == "fp32":
            assert torch.linalg.matrix_rank((after[name] - before[name]).detach(), rtol=1e-3) <= 8


class MoveTheBase(TrainingMitigation):
    """Changes a weight under its adapter."""

    name = "move_the_base"
    version = 1

    def end(self, state: Any, model: Any) -> None:
        model.model.language_model.layers[0].mlp.up_proj.base_layer.weight[0, 0] += 1


def test_a_weight_that_moves_under_its_adapter_fails_the_stage(ledger: Ledger) -> None:
    step = stage(MoveTheBase(), recipe=LORA8)
    with pytest.raises(StageError, match=r"1 tensors changed under their adapters: .*up_proj\.weight"):
        finetune(step, ledger, TrainingPlacement())
    assert ledger.find(step) is None
    assert finetune(stage(recipe=LORA8), ledger, TrainingPlacement()), "the next stage begins with what was read"


def test_each_stage_has_a_fresh_adapter_above_what_was_merged(ledger: Ledger) -> None:
    first = stage(recipe=LORA8)
    second = stage(recipe=LORA8, parent=first, skill=made_skill("again", shades(green=200)))
    for step in (first, second):
        finetune(step, ledger, TrainingPlacement())
    one, two = earlier_adapters(second, ledger)
    assert one.keys() == two.keys() and len(one) == 2 * 9
    a = "model.language_model.layers.0.mlp.up_proj.lora_A.default.weight"
    assert one[a].shape == (8, 96) and difference({a: one[a]}, {a: two[a]}) > 0.05, "other random numbers"
    merged = weights(second, ledger)
    for name, start in weights(BASE, ledger).items():
        module = name.removesuffix(".weight")
        if f"{module}.lora_A.default.weight" in one:
            added = sum(
                2.0 * s[f"{module}.lora_B.default.weight"] @ s[f"{module}.lora_A.default.weight"] for s in (one, two)
            )
            torch.testing.assert_close(merged[name].detach(), start.detach() + added, rtol=1e-4, atol=1e-5)


def test_the_adapter_of_a_first_stage_loads_in_peft(ledger: Ledger, tmp_path: Path) -> None:
    from peft import PeftModel

    step = stage(recipe={"lora": {"rank": 4, "dora": True}})
    finetune(step, ledger, TrainingPlacement())
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        with ledger.opened(f"{step.path}/adapter", name) as file:
            shutil.copy(file, tmp_path / name)
    model = PeftModel.from_pretrained(BASE.model.load_model(), str(tmp_path))
    expected = logits(load_checkpoint(step, ledger, precision="fp32"), BASE.model)
    torch.testing.assert_close(logits(model, BASE.model), expected, rtol=1e-3, atol=1e-3)


def test_an_adapter_and_a_part_that_trains_itself_go_together(ledger: Ledger) -> None:
    step = stage(
        recipe={"name": "both", "train": ["projector"], "adapter": {"rank": 4}, "learning_rates": {"projector": 1e-5}}
    )
    record = finetune(step, ledger, TrainingPlacement())
    assert record["trained_parameters"] == count_trained(step.recipe, step.model).trained
    start, after = weights(BASE, ledger), weights(step, ledger)
    moved = {name: float((after[name] - start[name]).detach().abs().max()) for name in start}
    assert {name.split(".")[1] for name, size in moved.items() if size} == {"multi_modal_projector", "language_model"}
    assert max(size for name, size in moved.items() if "projector" in name) < 5e-5


def test_an_adapter_learns_at_its_targets_rate() -> None:
    trainable_model = adapted({"lora_all": {"rank": 4, "learning_rates": {"llm.blocks.*.attention": 1e-4}}})
    rates = trainable_model.rates()
    assert set(rates.values()) == {1e-4}
    assert set(rates) == {name for name in trainable_model.trained if ".self_attn." in name}


def test_a_killed_stage_of_lora_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole, killed = Ledger(str(tmp_path / "whole")), Ledger(str(tmp_path / "killed"))
    step, placement = stage(recipe=LORA8), TrainingPlacement(save_every=2)
    finetune(step, whole, placement)
    finetune_killed_once(step, killed, placement)
    assert difference(weights(step, whole), weights(step, killed)) == 0


def test_without_dropout_the_cut_of_the_batch_does_not_matter(tmp_path: Path) -> None:
    whole, cut = Ledger(str(tmp_path / "whole")), Ledger(str(tmp_path / "cut"))
    step = stage(recipe={"lora": {"rank": 8, "dropout": 0}})
    finetune(step, whole, TrainingPlacement())
    finetune(step, cut, TrainingPlacement(micro_batch_size=1))
    assert difference(weights(step, whole), weights(step, cut)) < 5e-5


@pytest.mark.parametrize("recipe", [LORA8, "osf", "moe"], ids=str)
def test_activations_may_be_computed_anew(recipe: Any, tmp_path: Path) -> None:
    kept, recomputed = Ledger(str(tmp_path / "kept")), Ledger(str(tmp_path / "recomputed"))
    step = stage(recipe=recipe)
    finetune(step, kept, TrainingPlacement())
    finetune(step, recomputed, TrainingPlacement(gradient_checkpointing=True))
    assert difference(weights(step, kept), weights(step, recomputed)) < 5e-5


def test_more_layers_adapted_than_selected_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from lmmcl.training.stage import trainable

    def careless(adapter: Any, modules: list[str]) -> Any:
        from peft import LoraConfig

        return LoraConfig(r=4, target_modules=["gate_proj", "q_proj"])

    monkeypatch.setattr(trainable, "_peft_config", careless)
    with pytest.raises(StageError, match="expected adapters on 9 layers"):
        adapted(LORA8)


def test_a_target_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match="matches no parameter"):
        adapted({"name": "n", "adapter": {"rank": 4, "targets": ["qformer"]}})


def test_osf_keeps_the_large_singular_directions(ledger: Ledger) -> None:
    step = stage(recipe={"osf": {"preserved": 0.25, "targets": ["llm.blocks.*.mlp.up"]}}, learning_rate=1e-4)
    finetune(step, ledger, TrainingPlacement())
    name = "model.language_model.layers.0.mlp.up_proj.weight"
    start, after = (weights(each, ledger)[name].detach().double() for each in (BASE, step))
    u, _, v = torch.linalg.svd(start, full_matrices=False)
    kept = int(0.25 * 96)
    change = after - start
    assert float(change.abs().max()) > 1e-5
    assert float((u[:, :kept].T @ change).norm()) < 1e-3 * float(change.norm()), "but for the rounding of weights"
    assert float((change @ v[:kept].T).norm()) < 1e-3 * float(change.norm())
