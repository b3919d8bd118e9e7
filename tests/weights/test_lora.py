"""Adapters as checkpoints hold them: the merge gives the same bits everywhere, and a LoRA stage stores what it trained."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from stage_parts import BASE, difference, made_skill, shades, stage, weights

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.inspection.audit import check_store
from lmmcl.ledger import Ledger
from lmmcl.methods import get_mitigation
from lmmcl.models import get_model
from lmmcl.steps import Finetune, Merge
from lmmcl.training.finetune import finetune
from lmmcl.weights.adapter_export import export_adapter
from lmmcl.weights.chain import tensors_of
from lmmcl.weights.checkpoint import ensure_pretrained, export, load_checkpoint, named_tensors
from lmmcl.weights.delta import DELTA, HEADER, CheckpointError, save_delta
from lmmcl.weights.lora import ADAPTER_WEIGHTS, FOLDER, LayerAdapter, exact_product
from lmmcl.weights.merging import merge

PLACE = TrainingPlacement()
LORA = {"lora_all": {"rank": 4}}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(str(tmp_path / "store"))
    ensure_pretrained(BASE, ledger)
    return ledger


def factors(rank: int, seed: int = 0, outputs: int = 96, inputs: int = 130) -> tuple[torch.Tensor, torch.Tensor]:
    """A (rank × inputs) and B (outputs × rank), with rows of very different size and one of zeros."""
    noise = torch.Generator().manual_seed(seed)
    a, b = torch.randn(rank, inputs, generator=noise), torch.randn(outputs, rank, generator=noise)
    b *= torch.logspace(-30, 8, outputs)[:, None]
    b[7] = 0
    return a, b


@pytest.mark.parametrize("rank", [1, 8, 256, 1000])
def test_a_product_has_the_same_bits_in_whatever_order_it_is_summed(rank: int) -> None:
    a, b = factors(rank)
    expected, order = exact_product(b, a), torch.randperm(rank, generator=torch.Generator().manual_seed(1))
    assert torch.equal(exact_product(b[:, order], a[order]), expected)
    halves = [exact_product(b[rows], a) for rows in (slice(0, 40), slice(40, None))]
    assert torch.equal(torch.cat(halves), expected)
    true = b.double() @ a.double()
    size = b.double().abs() @ a.double().abs()
    assert bool(((expected - true).abs() <= 2e-6 * size).all()) and expected[7].eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dora", [False, True])
def test_a_merge_is_that_of_peft_up_to_its_rounding(dtype: torch.dtype, dora: bool) -> None:
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    noise = torch.Generator().manual_seed(3)
    base = torch.nn.Sequential(torch.nn.Linear(130, 96, bias=False))
    weight = torch.randn(96, 130, generator=noise).to(dtype)
    base[0].weight.data = weight.float()
    tuner = LoraModel(base, LoraConfig(r=8, lora_alpha=12, use_rslora=True, use_dora=dora, target_modules=["0"]), "x")
    layer: Any = base[0]
    a, b = 0.1 * torch.randn(8, 130, generator=noise), 0.1 * torch.randn(96, 8, generator=noise)
    layer.lora_A["x"].weight.data, layer.lora_B["x"].weight.data = a, b
    norms = None
    if dora:
        norms = layer.lora_magnitude_vector["x"].weight
        norms.data *= 1 + 0.1 * torch.rand(96, generator=noise)
    ours = LayerAdapter(a, b, 12 / 8**0.5, None if norms is None else norms.detach()).merge(weight)
    layer.merge()
    theirs = layer.base_layer.weight.detach().to(dtype)
    assert ours.dtype == dtype and tuner is not None
    tolerance = torch.finfo(dtype).eps
    torch.testing.assert_close(ours, theirs, rtol=2 * tolerance, atol=2 * tolerance)
    if dtype != torch.float32:
        assert float((ours != theirs).double().mean()) < 0.01


def two_stages(ledger: Ledger, recipe: Any = LORA, **more: Any) -> tuple[Finetune, Finetune]:
    first = stage(recipe=recipe, learning_rate=1e-2, **more)
    second = stage(recipe=recipe, learning_rate=1e-2, parent=first, skill=made_skill("b", shades(green=200)), **more)
    for step in (first, second):
        finetune(step, ledger, PLACE)
    return first, second


@pytest.mark.parametrize("settings", [{}, {"dora": True}, {"rslora": True}], ids=str)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stage_stores_its_adapter_and_no_merged_weight(settings: Any, precision: str, ledger: Ledger) -> None:
    first, second = two_stages(ledger, {"lora_all": {"rank": 4, **settings}}, precision=precision)
    for step in (first, second):
        folder, record = Path(ledger.store, step.path), ledger.find(step)
        assert record is not None
        tensors = load_file(folder / FOLDER / ADAPTER_WEIGHTS)
        trained = sum(tensor.nbytes for tensor in tensors.values())
        stored = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
        assert record["checkpoint_bytes"] == stored <= 1.05 * trained + 6000, (
            "the headers of so small a model weigh more"
        )
        assert load_file(folder / DELTA) == {}
        assert 4 * record["adapter"]["parameters"] == trained
    one, two = (named_tensors(load_checkpoint(step, ledger, precision=precision)) for step in (first, second))
    moved = {name for name in one if not torch.equal(one[name], two[name])}
    with tensors_of(second, ledger) as chain:
        assert moved == chain.tensors and len(moved) == 21
        assert [key for key, _ in chain.sources(min(moved))] == [f"{min(moved)} + adapter"] * 2


def test_a_part_that_trains_itself_beside_an_adapter_is_stored_as_such_and_later_stages_lie_over_both(
    ledger: Ledger,
) -> None:
    both = {"name": "both", "train": ["projector"], "adapter": {"rank": 4, "targets": ["llm.blocks.*.mlp"]}}
    first = stage(recipe=both)
    second = stage(recipe="mlp", parent=first, skill=made_skill("b", shades(green=200)))
    third = stage(recipe=both, parent=second, skill=made_skill("c", shades(green=99)))
    for step in (first, second, third):
        finetune(step, ledger, PLACE)
    with tensors_of(first, ledger) as chain:
        assert {name.split(".")[1] for name in chain} == {"multi_modal_projector"}
        assert len(chain.tensors) == len(list(chain)) + 9
    with tensors_of(third, ledger) as chain:
        up = "model.language_model.layers.0.mlp.up_proj.weight"
        assert [key for key, _ in chain.sources(up)] == [up, f"{up} + adapter"], "a whole tensor hides what lies below"
    assert difference(weights(second, ledger), weights(third, ledger)) > 0


@pytest.mark.parametrize("rule", ["wise_ft", {"ties": {"continues_from": "merged"}}], ids=str)
def test_merges_read_adapters_as_the_weights_that_they_give(rule: Any, ledger: Ledger) -> None:
    first, second = two_stages(ledger)
    found = get_mitigation(rule)
    merged = Merge(first, (second,), found)  # type: ignore[arg-type]
    merge(merged, ledger)
    one, two, value = (weights(step, ledger) for step in (first, second, merged))
    name = "model.language_model.layers.0.mlp.up_proj.weight"
    if rule == "wise_ft":
        torch.testing.assert_close(value[name], one[name].lerp(two[name], 0.9))
    kept = (value[name] != one[name]).double().mean()
    assert 0 < float(kept) <= (1 if rule == "wise_ft" else 0.9)
    third = stage(recipe=LORA, parent=merged, skill=made_skill("c", shades(green=99)))
    finetune(third, ledger, PLACE)
    assert difference(weights(merged, ledger), weights(third, ledger)) > 0


def test_weights_in_another_precision_are_the_merged_ones_rounded(ledger: Ledger) -> None:
    _, second = two_stages(ledger)
    exact = weights(second, ledger)
    rounded = named_tensors(load_checkpoint(second, ledger, precision="bf16"))
    base = named_tensors(BASE.model.load_model(precision="bf16"))
    assert all(torch.equal(rounded[name], exact[name].to(rounded[name].dtype)) for name in exact if name in rounded)
    assert {name: t.dtype for name, t in rounded.items()} == {name: t.dtype for name, t in base.items()}


def test_exports_hold_the_same_weights_whole_and_as_an_adapter(ledger: Ledger, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    _, second = two_stages(ledger)
    export(second, ledger, tmp_path / "whole")
    plain = named_tensors(AutoModelForImageTextToText.from_pretrained(tmp_path / "whole"))
    assert difference(weights(second, ledger), plain) == 0
    export_adapter(second, ledger, tmp_path / "adapter")
    model: Any = PeftModel.from_pretrained(BASE.model.load_model(), str(tmp_path / "adapter"))
    assert difference(weights(second, ledger), named_tensors(model.merge_and_unload())) < 1e-5


def test_merged_deltas_of_earlier_builds_are_read_beside_adapters(ledger: Ledger) -> None:
    first, second = two_stages(ledger)
    values = weights(second, ledger)
    with tensors_of(second, ledger) as chain:
        digest, changed = chain.deltas[0].header["base_digest"], sorted(chain.tensors)
    earlier, old = weights(first, ledger), Ledger(f"{ledger.store}-old")
    ensure_pretrained(BASE, old)
    for step, have in ((first, earlier), (second, values)):
        with old.writing(step) as draft:
            tensors = {name: have[name] for name in changed}
            save_delta(draft.folder, tensors, parent_key=step.parent.key, base_digest=digest)
            draft.commit({"precision": "fp32", "provenance": {}})
    assert difference(weights(second, old), values) == 0
    third = stage(recipe=LORA, parent=second, skill=made_skill("c", shades(green=99)))
    for store in (old, ledger):
        finetune(third, store, PLACE)
    assert difference(weights(third, old), weights(third, ledger)) == 0


def test_an_adapter_that_does_not_give_the_weights_of_its_stage_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    step = stage(recipe=LORA, learning_rate=1e-2)
    finetune(step, ledger, PLACE)
    file = Path(ledger.store, step.path, DELTA)
    content = file.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])["__metadata__"]
    said = json.loads(header[HEADER])
    name = min(said["adapter"]["merged"])
    said["adapter"]["merged"][name] = "0" * 32
    other = Ledger(str(tmp_path / "other"))
    ensure_pretrained(BASE, other)
    with other.writing(step) as draft:
        save_file({}, draft.folder / DELTA, metadata={HEADER: json.dumps(said)})
        (draft.folder / FOLDER).mkdir()
        adapter = Path(ledger.store, step.path, FOLDER, ADAPTER_WEIGHTS).read_bytes()
        (draft.folder / FOLDER / ADAPTER_WEIGHTS).write_bytes(adapter)
        draft.commit({"precision": "fp32", "provenance": {}})
    with pytest.raises(CheckpointError, match=f"merging its adapter into {name} does not give the weights"):
        load_checkpoint(step, other, precision="fp32")


def test_a_check_of_the_store_looks_at_adapters_and_gc_drops_them(ledger: Ledger) -> None:
    step = stage(recipe=LORA)
    finetune(step, ledger, PLACE)
    adapter = Path(ledger.store, step.path, FOLDER, ADAPTER_WEIGHTS)
    assert ledger.drop_weights(step.path) >= adapter.parent.parent.joinpath("curve.jsonl").stat().st_size
    assert not adapter.exists()
    finetune(step, ledger, PLACE)
    content = bytearray(adapter.read_bytes())
    content[-1] ^= 1
    adapter.write_bytes(content)
    assert [damage.why for damage in check_store(Ledger(ledger.store)).damages] == [
        f"{FOLDER}/{ADAPTER_WEIGHTS} checksum mismatch"
    ]


def test_a_stage_of_a_seven_billion_model_weighs_what_its_adapter_does() -> None:
    from lmmcl.methods.recipes.recipe import get_recipe
    from lmmcl.steps.count_trained import count_trained

    recipe = get_recipe({"lora": {"rank": 8, "targets": ["llm.blocks.*.attention"]}})
    counted = count_trained(recipe, get_model("qwen2.5-vl-7b"))
    assert counted.stage_bytes("bf16") == 4 * counted.trained < 21e6
    assert counted.merge_bytes("bf16") == 2 * counted.changed > 1.6e9
