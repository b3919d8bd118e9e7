"""LoRA over a base in 4 bits: what moves, what is proved, stored, loaded, resumed and exported; and 8-bit optimizers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from stage_parts import difference, made_skill, shades, stage

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.methods import get_mitigation
from lmmcl.methods.mitigation import MergeMitigation, TrainingMitigation
from lmmcl.models import get_model
from lmmcl.models.inputs.model_settings import ModelSettings
from lmmcl.models.processing.encode import encode
from lmmcl.models.processing.padding import pad
from lmmcl.models.quantized.base_settings import BaseSettings
from lmmcl.models.quantized.nf4 import earlier_names, nf4_layers, quantized_storage
from lmmcl.registry import members
from lmmcl.steps import Finetune, Merge, Pretrained, Snapshot
from lmmcl.steps.count_trained import count_trained
from lmmcl.training.finetune import finetune
from lmmcl.training.stage_errors import StageError
from lmmcl.weights.adapter_export import export_adapter
from lmmcl.weights.chain import tensors_of
from lmmcl.weights.checkpoint import CheckpointError, ensure_pretrained, export, load_checkpoint, named_tensors
from lmmcl.weights.delta import QUANTIZED_FORMAT
from lmmcl.weights.merging import merge
from lmmcl.weights.quantized_base import dequantize_model

LORA4: Any = {"lora_all": {"rank": 4, "alpha": 16}}
PLACE = TrainingPlacement()
EASY = {"token_masking": {"threshold": 50.0}, "ewc": {"examples": 6}}
MITIGATIONS = {
    name: kind for name, kind in members("lmmcl.methods", "MITIGATIONS").items() if issubclass(kind, TrainingMitigation)
}


def base(name: str = "tiny-onevision", **settings: Any) -> Pretrained:
    return Pretrained(get_model(name).with_settings(ModelSettings(base=BaseSettings(quantize="nf4", **settings))))


BASE = base()


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path / "store"))


def qlora(**more: Any) -> Finetune:
    return stage(**{"recipe": LORA4, "parent": BASE, **more})


def loaded(step: Any, ledger: Ledger, precision: str = "fp32") -> Any:
    return load_checkpoint(step, ledger, precision=precision)


def logits(model: Any) -> torch.Tensor:
    processor = BASE.model.load_processor()
    batch = pad(processor, [encode(processor, example, with_answer=True) for example in shades(3)])
    batch.pop("labels")
    with torch.no_grad():
        return model.eval()(**batch).logits


def same_storage(one: Any, other: Any) -> bool:
    first, second = quantized_storage(one), quantized_storage(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_chain_trains_its_adapters_over_a_base_that_stays_bit_for_bit(precision: str, ledger: Ledger) -> None:
    start = ensure_pretrained(BASE, ledger)
    first = qlora(precision=precision, max_steps=2)
    second = qlora(parent=first, precision=precision, max_steps=2, skill=made_skill("after", shades(12, green=200)))
    for step in (first, second):
        record = finetune(step, ledger, PLACE)
        assert record["trained_parameters"] == count_trained(step.recipe, step.model).trained
        assert record["adapter"]["quantized_layers"] == record["adapter"]["layers"] == 21
        assert record["proof"] == {"frozen": record["proof"]["frozen"], "moved": 42, "unmoved": []}
        assert record["total_parameters"] == start["total_parameters"] == 702000
        assert record["checkpoint_bytes"] < 1.1 * count_trained(step.recipe, step.model).stage_bytes(precision)
    models = [loaded(step, ledger, precision) for step in (BASE, first, second)]
    assert same_storage(models[0], models[1]) and same_storage(models[0], models[2])
    assert [nf4_layers(model).popitem()[1].earlier_a.shape[0] for model in models] == [0, 4, 8]
    with tensors_of(second, ledger) as chain:
        assert len(chain) == 0 and {delta.header["format"] for delta in chain.deltas} == {QUANTIZED_FORMAT}
    other = loaded(second, ledger, {"fp32": "bf16", "bf16": "fp32"}[precision])
    assert same_storage(models[2], other)  # what is evaluated in another precision has the same codes and scales
    for one, two in zip(nf4_layers(models[2]).values(), nf4_layers(other).values(), strict=True):
        assert torch.equal(one.earlier_b, two.earlier_b)


def test_a_checkpoint_computes_what_its_stage_ended_with(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmmcl.training.stage import trainable

    ends: list[torch.Tensor] = []
    merge = trainable.Adapted.merge_adapters

    def watched(self: Any, *args: Any) -> Any:
        ends.append(logits(self.model))
        return merge(self, *args)

    monkeypatch.setattr(trainable.Adapted, "merge_adapters", watched)
    first = qlora()
    second = qlora(parent=first)
    for step in (first, second):
        finetune(step, ledger, PLACE)
        torch.testing.assert_close(logits(loaded(step, ledger)), ends.pop(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("part", ["codes", "scales"])
def test_a_quantised_weight_that_changes_fails_the_stage(part: str, ledger: Ledger) -> None:
    class Meddling(TrainingMitigation[None]):
        name, version = "meddling", 1

        def end(self, state: None, model: Any) -> None:
            layer = next(iter(nf4_layers(model).values()))
            changed = layer.weight.data if part == "codes" else layer.weight.quant_state.state2.absmax
            changed.view(-1)[0] += 1

    with pytest.raises(StageError, match="1 tensors changed under their adapters"):
        finetune(qlora(mitigation=Meddling()), ledger, PLACE)


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit"])
def test_a_killed_stage_is_resumed_to_the_same_weights(optimizer: str, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def die(shown: dict[str, Any]) -> None:
        if shown["update"] == 3:
            raise Killed

    placement = TrainingPlacement(save_every=2)
    whole, killed = (Ledger(str(tmp_path / name)) for name in ("whole", "killed"))
    step = qlora(optimizer=optimizer)
    finetune(step, whole, placement)
    with pytest.raises(Killed):
        finetune(step, killed, placement, progress=die)
    seen: list[int] = []
    finetune(step, killed, placement, progress=lambda shown: seen.append(shown["update"]))
    assert seen == [3, 4]
    assert difference(*(named_tensors(loaded(step, ledger)) for ledger in (whole, killed))) == 0


def test_a_snapshot_inside_a_stage_is_what_a_shorter_pass_ended_with(ledger: Ledger) -> None:
    step = qlora(lr_scheduler_type="constant", warmup_ratio=0)
    finetune(Snapshot(step, 2), ledger, PLACE)
    short = qlora(lr_scheduler_type="constant", warmup_ratio=0, max_steps=2)
    finetune(short, ledger, PLACE)
    assert difference(named_tensors(loaded(Snapshot(step, 2), ledger)), named_tensors(loaded(short, ledger))) == 0


def test_what_is_not_quantised_trains_and_merges_beside_it(ledger: Ledger) -> None:
    recipe = {
        "name": "mixed",
        "train": ["projector"],
        "adapter": {"rank": 4, "targets": ["llm.blocks.*.mlp", "vision.blocks.*.attention"]},
    }
    first = qlora(recipe=recipe)
    second = qlora(recipe={"name": "seen", "train": ["projector"]}, parent=first)
    for step in (first, second):
        record = finetune(step, ledger, PLACE)
    assert record["proof"]["moved"] == record["trained_tensors"] > 0 and "adapter" not in record.fields
    start, after = (named_tensors(loaded(step, ledger)) for step in (BASE, second))
    moved = {
        name for name in after if start[name].shape != after[name].shape or not torch.equal(start[name], after[name])
    }
    beside = {name for name in moved if name.endswith(("earlier_a", "earlier_b"))}
    assert all(".mlp." in name and "language" in name for name in beside) and len(beside) == 2 * 9
    assert {name.split(".")[1] for name in moved - beside} == {"multi_modal_projector", "vision_tower"}


@pytest.mark.parametrize("recipe", [{"kappatune": {"rank": 4}}, {"lora_all": {"rank": 4, "rslora": True}}], ids=str)
def test_relatives_of_lora_train_over_it_stage_after_stage(recipe: Any, ledger: Ledger) -> None:
    first = qlora(recipe=recipe, max_steps=2)
    second = qlora(recipe=recipe, max_steps=2, parent=first)
    layers = [finetune(step, ledger, PLACE)["adapter"]["layers"] for step in (first, second)]
    assert layers == ([4, 4] if "kappatune" in recipe else [21, 21])
    assert same_storage(loaded(BASE, ledger), loaded(second, ledger))


@pytest.mark.parametrize("name", MITIGATIONS)
def test_every_mitigation_that_acts_during_training_acts_over_it(name: str, ledger: Ledger) -> None:
    first = qlora(max_steps=1, skill=made_skill("before"))
    finetune(first, ledger, PLACE)
    mitigation = get_mitigation({name: EASY.get(name, {})})
    record = finetune(qlora(parent=first, mitigation=mitigation, max_steps=2), ledger, PLACE)
    assert (
        record["updates"] == 2 and record["proof"]["moved"] == 42 and abs(record["loss"]) < 20
    )  # the mean of a group's advantages is 0


def test_an_export_is_a_plain_model_of_the_dequantised_weights_with_the_adapters_merged(
    ledger: Ledger, tmp_path: Path
) -> None:
    from transformers import AutoModelForImageTextToText

    first = qlora()
    second = qlora(parent=first)
    for step in (first, second):
        finetune(step, ledger, PLACE)
    directory = export(second, ledger, tmp_path / "plain")
    plain = AutoModelForImageTextToText.from_pretrained(directory, dtype=torch.float32)
    assert not nf4_layers(plain)
    torch.testing.assert_close(logits(plain), logits(loaded(second, ledger)), rtol=1e-3, atol=1e-3)
    assert '"dequantized": "fp32"' in (directory / "lmmcl.json").read_text()


def test_the_adapters_of_all_stages_are_one_adapter_for_the_quantised_base(ledger: Ledger, tmp_path: Path) -> None:
    from peft import PeftModel

    first = qlora()
    second = qlora(parent=first)
    for step in (first, second):
        finetune(step, ledger, PLACE)
    directory = export_adapter(second, ledger, tmp_path / "adapter")
    model = loaded(BASE, ledger)
    dequantize_model(model, torch.float32)
    adapted = PeftModel.from_pretrained(model, str(directory))
    torch.testing.assert_close(logits(adapted), logits(loaded(second, ledger)), rtol=1e-3, atol=1e-3)


def test_a_checkpoint_of_another_quantisation_is_not_loaded(ledger: Ledger) -> None:
    from dataclasses import replace

    step = qlora(max_steps=1)
    ensure_pretrained(BASE, ledger)
    finetune(step, ledger, PLACE)
    for other in (base(double_quant=False), Pretrained(get_model("tiny-onevision"))):
        foreign = replace(ledger.checkpoint(step.key), model=other.model)
        for precision in ("fp32", "bf16"):
            with pytest.raises(CheckpointError, match=r"belongs to the base fp32:.*:nf4-"):
                loaded(foreign, ledger, precision)


def test_a_recorded_checkpoint_is_found_again_with_its_quantisation(ledger: Ledger) -> None:
    step = qlora(max_steps=1)
    ensure_pretrained(BASE, ledger)
    finetune(step, ledger, PLACE)
    again = ledger.checkpoint(step.key)
    assert again.model.settings == BASE.model.settings
    assert difference(named_tensors(loaded(again, ledger)), named_tensors(loaded(step, ledger))) == 0


def test_another_sweep_starts_from_it_or_quantises_where_it_starts(ledger: Ledger) -> None:
    over, plain = qlora(max_steps=1), stage(recipe="sa_proj", max_steps=1)
    for start in (BASE, plain.parent):
        ensure_pretrained(start, ledger)
    for step in (over, plain):
        finetune(step, ledger, PLACE)
    held = get_model(f"checkpoint:{over.key}@{ledger.store}")
    assert held.settings.base == BASE.model.settings.base
    further = qlora(parent=Pretrained(held), max_steps=1)
    finetune(further, ledger, PLACE)
    assert nf4_layers(loaded(further, ledger)).popitem()[1].earlier_a.shape[0] == 8
    tuned = get_model(f"checkpoint:{plain.key}@{ledger.store}").with_settings(BASE.model.settings)
    after = qlora(parent=Pretrained(tuned), max_steps=1)
    finetune(after, ledger, PLACE)
    model = loaded(after, ledger)
    assert len(nf4_layers(model)) == 21 and not same_storage(model, loaded(over, ledger))
    with pytest.raises(UserError, match=r"quantised already \(nf4\)"):
        held.with_settings(base(double_quant=False).model.settings)


def test_a_merge_of_quantised_checkpoints_is_an_error_even_where_no_plan_refused_it(ledger: Ledger) -> None:
    step = qlora(max_steps=1)
    finetune(step, ledger, PLACE)
    rule = get_mitigation({"wise_ft": {"alpha": 0.5}})
    assert isinstance(rule, MergeMitigation)
    with pytest.raises(UserError, match="is quantised"):
        merge(Merge(BASE, (step,), rule), ledger)


def test_an_8_bit_optimizer_learns_as_adamw_does_in_a_quarter_of_the_memory(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmmcl.training.stage.trainer import StageTrainer

    kept: dict[str, int] = {}
    losses = {}
    log = StageTrainer.log

    def watched(self: Any, *args: Any, **more: Any) -> None:
        states = [
            value for state in self.optimizer.state.values() for value in state.values() if torch.is_tensor(value)
        ]
        kept[self.step.training.optimizer] = sum(value.nbytes for value in states if value.numel() > 256)
        log(self, *args, **more)

    monkeypatch.setattr(StageTrainer, "log", watched)
    for optimizer in ("adamw", "adamw_8bit"):
        step = stage(recipe={"lora_all": {"rank": 24}}, max_steps=8, optimizer=optimizer)
        losses[optimizer] = finetune(step, ledger, PLACE)["loss"]
    assert losses["adamw_8bit"] == pytest.approx(losses["adamw"], rel=0.05) and losses["adamw_8bit"] != losses["adamw"]
    assert kept["adamw_8bit"] < 0.6 * kept["adamw"]  # tensors below 4,096 entries stay in fp32


def test_a_paged_optimizer_on_a_cpu_is_refused(ledger: Ledger) -> None:
    with pytest.raises(UserError, match=r"training\.optimizer: paged_adamw_8bit moves its states"):
        finetune(qlora(optimizer="paged_adamw_8bit"), ledger, PLACE)


def test_the_names_of_what_lies_beside_a_weight() -> None:
    assert earlier_names("model.layers.0.q_proj.weight") == (
        "model.layers.0.q_proj.earlier_a",
        "model.layers.0.q_proj.earlier_b",
    )
