"""Qwen2.5-VL with random weights, of the shapes of the 3 B and 7 B models or tiny, made in memory: nothing is downloaded."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from lmmcl.models.families import qwen2_5_vl
from lmmcl.models.tiny.tiny import TinyLMM
from lmmcl.models.tiny.tiny_config import configuration

TEXT_3B = {
    "vocab_size": 151936,
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
}
TEXT_7B = {
    **TEXT_3B,
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
}
VISION_3B = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
    "out_hidden_size": 2048,
}
VISION_7B = {**VISION_3B, "out_hidden_size": 3584}
MROPE_3B = [16, 24, 24]
SHAPES = {"3b": (TEXT_3B, VISION_3B), "7b": (TEXT_7B, VISION_7B)}
SIZES = ("tiny", *SHAPES)


@dataclass(frozen=True)
class SizedQwen(TinyLMM):
    """Qwen2.5-VL behind the tiny processor; `size` is one of SIZES. The 3 B model has 3.75 B parameters with its vision, the 7 B 8.29 B."""

    size: str = "3b"

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "size": self.size}

    @property
    def real_name(self) -> str:
        """The model whose shapes these are."""
        return "tiny-qwen" if self.size == "tiny" else f"qwen2.5-vl-{self.size}"

    def values(self) -> dict[str, Any]:
        """The configuration; patches stay those of the tiny processor, which changes one small convolution."""
        values = configuration("qwen")
        if self.size in SHAPES:
            text, vision = SHAPES[self.size]
            rope = {**values["text_config"]["rope_parameters"], "mrope_section": MROPE_3B, "rope_theta": 1e6}
            values["text_config"] = {**values["text_config"], **text, "rope_parameters": rope}
            values["vision_config"] = {**values["vision_config"], **vision}
            values["tie_word_embeddings"] = text.get("tie_word_embeddings", True)
        return values

    def role_counts(self) -> dict[str, int]:
        return dict(_role_counts(self))

    def load_model(self, *, precision: str = "fp32", device: str = "cpu", attention: str = "sdpa") -> Any:
        from transformers import AutoConfig, AutoModelForImageTextToText

        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        config = AutoConfig.for_model(**self.values())
        on = "cuda" if self.size != "tiny" and torch.cuda.is_available() else "cpu"  # a CPU takes minutes to draw them
        torch.manual_seed(0)
        with torch.device(on):
            model: Any = AutoModelForImageTextToText.from_config(config, dtype=dtype, attn_implementation=attention)
        return model.to(device).eval()

    def load_processor(self) -> Any:
        """The tiny one, which leaves pictures of up to 1024 × 1024 pixels as large as they are."""
        processor: Any = super().load_processor()
        processor.image_processor.size["longest_edge"] = 1024 * 1024
        return processor


def sized(size: str) -> SizedQwen:
    return SizedQwen(f"random-qwen-{size}", family="qwen2_5_vl", style="qwen", rules=qwen2_5_vl.RULES, size=size)


@cache
def meta(lmm: SizedQwen) -> Any:
    """The model without values."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(AutoConfig.for_model(**lmm.values()))


@cache
def _role_counts(lmm: SizedQwen) -> Counter[str]:
    counts: Counter[str] = Counter()
    sizes = {name: parameter.numel() for name, parameter in meta(lmm).named_parameters()}
    for name, role in lmm.roles_of(sizes).items():
        counts[role] += sizes[name]
    return counts
