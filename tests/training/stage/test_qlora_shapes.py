"""QLoRA over Qwen2.5-VL in three layers with random weights, as a local folder: bytes as planned, two stages, both exports."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from stage_parts import made_skill, shades, stage
from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.ledger import Ledger
from lmmcl.models import get_model
from lmmcl.models.inputs.model_settings import ModelSettings
from lmmcl.models.quantized.base_settings import BaseSettings
from lmmcl.models.quantized.nf4 import nf4_layers, quantized_storage
from lmmcl.models.tiny.tiny_config import configuration, generation
from lmmcl.steps import Pretrained
from lmmcl.steps.quantized import weight_bytes
from lmmcl.training.finetune import finetune
from lmmcl.weights.adapter_export import export_adapter
from lmmcl.weights.checkpoint import ensure_pretrained, export, load_checkpoint, named_tensors

PLACE = TrainingPlacement()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Qwen2.5-VL with three layers of width 512 and heads of 64; vocabulary, vision tower and processor of `tiny-qwen`."""
    values: dict[str, Any] = copy.deepcopy(configuration("qwen"))
    values["text_config"] |= {
        "hidden_size": 512,
        "intermediate_size": 2752,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
    }
    values["text_config"]["rope_parameters"]["mrope_section"] = [8, 12, 12]
    values["vision_config"]["out_hidden_size"] = 512
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = AutoModelForImageTextToText.from_config(AutoConfig.for_model(**values), dtype=torch.bfloat16)
    model.generation_config = GenerationConfig(**generation("qwen"))
    path = tmp_path_factory.mktemp("models") / "three-layers"
    model.save_pretrained(path)
    get_model("tiny-qwen").save_processor(path)
    return path


def test_two_stages_over_it_are_proved_stored_and_exported(folder: Path, tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "store"))
    base = Pretrained(get_model(str(folder)).with_settings(ModelSettings(base=BaseSettings(quantize="nf4"))))
    start = ensure_pretrained(base, ledger)
    assert start["bytes"] == weight_bytes(base.model, "fp32")  # to the byte
    assert start["quantized"]["layers"] == 3 * 7 and start["quantized"]["bits_per_weight"] == pytest.approx(
        4.127, abs=1e-3
    )
    model = load_checkpoint(base, ledger, precision="bf16")
    scales = {name: tensor for name, tensor in named_tensors(model).items() if ".weight." in name}
    held = sum(parameter.nbytes for parameter in model.parameters()) + sum(tensor.nbytes for tensor in scales.values())
    assert held == weight_bytes(base.model, "bf16") < 0.32 * 2 * start["total_parameters"]

    recipe = {"lora_all": {"rank": 16}}
    more: dict[str, Any] = {"precision": "bf16", "max_steps": 2, "optimizer": "adamw_8bit"}
    first = stage(recipe=recipe, parent=base, **more)
    second = stage(recipe=recipe, parent=first, skill=made_skill("after", shades(12, green=200)), **more)
    for step in (first, second):
        record = finetune(step, ledger, PLACE)
        assert record["proof"]["moved"] == 2 * 21 and record["adapter"]["quantized_layers"] == 21
    before, after = quantized_storage(model), quantized_storage(load_checkpoint(second, ledger, precision="bf16"))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)

    directory = export(second, ledger, tmp_path / "plain")
    plain = AutoModelForImageTextToText.from_pretrained(directory, dtype=torch.bfloat16)
    assert not nf4_layers(plain) and plain.num_parameters() == start["total_parameters"]
    adapter = export_adapter(second, ledger, tmp_path / "adapter")
    assert '"r": 32' in (adapter / "adapter_config.json").read_text()
