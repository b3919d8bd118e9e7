"""O-LoRA: what it measures, and that later adapters stay clear of earlier ones."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from made import SWEEP, write_sweep
from stage_parts import made_skill, shades, stage

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.config.sweep import load_sweep
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.methods.losses.o_lora import OLoRA
from lmmcl.training.finetune import finetune
from lmmcl.training.stage.adapter_names import earlier_adapters

LORA: dict[str, Any] = {"lora": {"rank": 4, "alpha": 16, "dropout": 0}}
NAME = "layer.lora_A.default.weight"


def penalty(weight: float, own: torch.Tensor, *earlier: torch.Tensor) -> Any:
    layer = torch.nn.Module()
    layer.lora_A = torch.nn.ModuleDict({"default": torch.nn.Linear(*own.T.shape, bias=False)})
    layer.lora_A["default"].weight.data = own
    model = torch.nn.ModuleDict({"layer": layer})
    context = SimpleNamespace(model=model, trained=[NAME], earlier_adapters=lambda: [{NAME: a} for a in earlier])
    rule = OLoRA(weight=weight)
    return rule.penalty(rule.start(context), model, None, {})  # type: ignore[arg-type]


def test_the_penalty_is_the_squared_overlap_with_every_earlier_adapter() -> None:
    eye = torch.eye(6)
    assert penalty(0.5, eye[:2], eye[2:4], eye[4:6]) == 0
    assert penalty(0.5, eye[:2], eye[1:3], 2 * eye[:1]) == 0.5 * (1 + 4)


def test_the_first_stage_has_no_penalty() -> None:
    assert penalty(0.5, torch.eye(4)) is None


def test_a_second_adapter_stays_clear_of_the_first(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    overlap = {}
    for weight in (0.0, 5.0):
        first = stage(OLoRA(weight=weight), recipe=LORA)
        again = made_skill("again", shades(green=200))
        second = stage(OLoRA(weight=weight), recipe=LORA, parent=first, skill=again, max_steps=30, learning_rate=3e-3)
        for step in (first, second):
            finetune(step, ledger, TrainingPlacement())
        one, two = earlier_adapters(second, ledger)
        overlap[weight] = sum(float((one[name] @ two[name].T).square().sum()) for name in one if "lora_A" in name)
    assert overlap[5.0] < 0.1 * overlap[0.0]


def test_a_recipe_without_lora_is_refused_at_the_door(tmp_path: Path) -> None:
    text = SWEEP.replace("recipe: [sa_proj, gate_up]", "mitigation: [o_lora], recipe: [sa_proj]")
    with pytest.raises(UserError, match=r"grids\[0\]\.mitigation: o_lora needs a recipe with a LoRA adapter"):
        load_sweep(write_sweep(tmp_path, text))
