"""What tests of experts share: a model's logits on a few pictures, and two stages that train the same experts."""

from __future__ import annotations

from typing import Any

import torch
from stage_parts import made_skill, shades, stage

from lmmcl.models import get_model
from lmmcl.models.experts.lora_experts import LoRAExperts
from lmmcl.models.linears import linear_modules
from lmmcl.models.processing.encode import encode
from lmmcl.models.processing.padding import pad
from lmmcl.steps import Finetune

TINY = get_model("tiny-onevision")
MLPS = [f"model.language_model.layers.{n}.mlp" for n in range(3)]
FOUR = LoRAExperts(experts=4, rank=2, scale=2.0, dropout=0.0, seed=5)
FOUR_OF_RANK_2 = {"moelora": {"experts": 4, "rank": 8, "alpha": 16}}


def logits(model: Any, lmm: Any = TINY) -> torch.Tensor:
    """Of three pictures and their questions."""
    processor = lmm.load_processor()
    batch = pad(processor, [encode(processor, example, with_answer=True) for example in shades(3)])
    batch.pop("labels")
    with torch.no_grad():
        return model(**batch).logits


def blocks_of(model: Any, lmm: Any = TINY) -> list[str]:
    """The linear layers of the language model's blocks."""
    roles = lmm.roles_of(name for name, _ in model.named_parameters())
    return [name.removesuffix(".weight") for name in linear_modules(model) if roles[name].startswith("llm.blocks.")]


def two_stages(recipe: Any, **more: Any) -> tuple[Finetune, Finetune]:
    """One after the other, of two skills."""
    first = stage(recipe=recipe, learning_rate=3e-3, max_steps=8, **more)
    again = made_skill("again", shades(green=200))
    return first, stage(recipe=recipe, learning_rate=3e-3, max_steps=8, parent=first, skill=again, **more)
