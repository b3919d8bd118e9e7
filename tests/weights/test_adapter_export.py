"""Adapters leave the store as one that PEFT puts on the pre-trained model."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from stage_parts import BASE, made_skill, shades, stage

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.models import get_model
from lmmcl.models.processing.encode import encode
from lmmcl.models.processing.padding import pad
from lmmcl.steps import Finetune, Pretrained
from lmmcl.training.finetune import finetune
from lmmcl.weights.adapter_export import _base, export_adapter, vllm_command
from lmmcl.weights.checkpoint import ensure_pretrained, load_checkpoint


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path / "store"))


def stages(ledger: Ledger, recipe: Any, count: int) -> Finetune:
    step: Any = BASE
    for number in range(count):
        skill = made_skill(f"shades{number}", shades(green=60 * number))
        step = stage(recipe=recipe, parent=step, skill=skill, learning_rate=3e-3)
        finetune(step, ledger, TrainingPlacement())
    return step


def logits(model: Any) -> torch.Tensor:
    processor = BASE.model.load_processor()
    batch = pad(processor, [encode(processor, example, with_answer=True) for example in shades(3)])
    batch.pop("labels")
    with torch.no_grad():
        return model.eval()(**batch).logits


@pytest.mark.parametrize(
    ("recipe", "count"),
    [
        ({"lora": {"rank": 4}}, 3),
        ({"lora_all": {"rank": 4, "alpha": 16, "rslora": True}}, 2),
        ({"lora": {"rank": 4, "dora": True}}, 1),
    ],
    ids=str,
)
def test_peft_computes_what_the_checkpoint_does(recipe: Any, count: int, ledger: Ledger, tmp_path: Path) -> None:
    from peft import PeftModel

    step = stages(ledger, recipe, count)
    folder = export_adapter(step, ledger, tmp_path / "out")
    tuned, base = logits(load_checkpoint(step, ledger, precision="fp32")), logits(BASE.model.load_model())
    assert float((tuned - base).abs().max()) > 1e-2
    exported = logits(PeftModel.from_pretrained(BASE.model.load_model(), str(folder)))
    torch.testing.assert_close(exported, tuned, rtol=1e-3, atol=1e-3)
    assert (folder / "lmmcl.json").is_file()
    _has_the_layout_that_vllm_reads(folder)


def _has_the_layout_that_vllm_reads(folder: Path) -> None:
    """What vLLM's loader asks of a PEFT folder, as its documentation says; vLLM itself runs on GPUs alone."""
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    assert config["bias"] == "none", "vLLM has no biases of adapters"
    assert not config["modules_to_save"], "vLLM loads adapters alone"
    tensors = load_file(folder / "adapter_model.safetensors")
    names = {name for name, _ in BASE.model.load_model().named_modules()}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"base_model\.model\.(.+)\.lora_(A\.weight|B\.weight|magnitude_vector)", name)
        assert match, name
        assert match[1] in names
        assert match[2] == "magnitude_vector" or config["r"] in tensor.shape


def test_an_exported_adapter_is_told_with_the_command_that_serves_it(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = stages(ledger, {"lora": {"rank": 6}}, 2)
    folder = export_adapter(step, ledger, tmp_path / "out")
    assert (
        vllm_command(step, folder)
        == "PEFT puts it on tiny-onevision; vLLM needs a base that lies in a folder or on the hub"
    )
    config = json.loads((folder / "adapter_config.json").read_text())

    def told(**changed: Any) -> str:
        (folder / "adapter_config.json").write_text(json.dumps({**config, **changed}))
        return vllm_command(step, folder)

    base = tmp_path / "my base"
    base.mkdir()
    lora = f"out={folder}"
    command = told(base_model_name_or_path=str(base))
    assert shlex.split(command) == [
        *("vllm", "serve", str(base), "--enable-lora", "--max-lora-rank", "16", "--lora-modules", lora)
    ]
    assert "--revision abc --enable-lora" in told(base_model_name_or_path=str(base), revision="abc")
    assert told(use_dora=True).startswith("vLLM loads no DoRA adapters")
    assert told(r=513).startswith("vLLM loads adapters up to rank 512, this one has 513")


@pytest.mark.parametrize(
    ("recipe", "count", "said"),
    [
        ("sa_proj", 1, "is not a LoRA stage"),
        ({"lora": {"rank": 4, "dora": True}}, 2, "2 stages of DoRA are not one adapter"),
        (
            {"name": "both", "train": ["projector"], "adapter": {"rank": 4}},
            1,
            "besides its adapter, such as model.multi_modal",
        ),
    ],
    ids=str,
)
def test_what_is_more_than_adapters_is_refused(
    recipe: Any, count: int, said: str, ledger: Ledger, tmp_path: Path
) -> None:
    step = stages(ledger, recipe, count)
    with pytest.raises(UserError, match=said):
        export_adapter(step, ledger, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_exported_adapter_is_a_model_to_start_from_and_names_its_base(ledger: Ledger, tmp_path: Path) -> None:
    step = stages(ledger, {"lora": {"rank": 4}}, 1)
    folder = export_adapter(step, ledger, tmp_path / "out")
    again = get_model(str(folder))
    assert again.identity()["base"] == BASE.model.identity()
    tuned = load_checkpoint(step, ledger, precision="fp32")
    off = float((logits(again.load_model()) - logits(tuned)).abs().max())
    assert off < 1e-4
    other = stage(recipe={"lora": {"rank": 4}}, parent=Pretrained(again), skill=made_skill("more", shades(green=9)))
    ensure_pretrained(other.parent, ledger)
    finetune(other, ledger, TrainingPlacement())
    with pytest.raises(UserError, match=r"started from out-.*PEFT cannot name that as a base; omit --adapter"):
        export_adapter(other, ledger, tmp_path / "more")


def test_an_adapter_names_the_commit_of_a_base_on_the_hub() -> None:
    model: Any = get_model("qwen2.5-vl-3b")
    assert _base(Pretrained(model)) == {"base_model_name_or_path": model.hub, "revision": model.revision}
