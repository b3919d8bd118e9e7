"""Tiny models that ship: the three families in small, for laptops, tests and the tutorial.

`tiny-onevision` is pre-trained (see `maintenance/tiny_train.py`) when its weights lie in `data/tiny-onevision`; the others have
seeded random weights and serve to show that a family trains, generates, saves and loads.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lmmcl.models.families import llava_next, llava_onevision, qwen2_5_vl
from lmmcl.models.inputs.many_tiles import take_tiles, write_grids
from lmmcl.models.inputs.model_settings import AS_IT_COMES, ModelSettings, text_width
from lmmcl.models.lmm import LMM
from lmmcl.models.pretrained import named
from lmmcl.models.roles import RoleRule
from lmmcl.models.tiny.tiny_config import SEED, configuration, generation
from lmmcl.models.tiny.tiny_processor import DATA, build_processor

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class TinyLMM(LMM):
    """A model of `family` in small. `style` names its configuration and processor; `rules` its roles."""

    knows_drawings: ClassVar[bool] = True
    name: str
    family: str  # type: ignore[misc]  # here one class serves three families
    style: str
    rules: tuple[RoleRule, ...] = field(repr=False)  # type: ignore[misc]
    description: str = ""
    settings: ModelSettings = AS_IT_COMES

    @property
    def reference(self) -> str:
        return named(self.name, self.settings)

    @property
    def directory(self) -> Path:
        """Where what ships of this model lies."""
        return DATA / self.name

    @property
    def is_pretrained(self) -> bool:
        """Whether weights ship; if not, they are random with a fixed seed."""
        return (self.directory / WEIGHTS).exists()

    def identity(self) -> dict[str, Any]:
        own = {"name": self.name, "digest": _digest(self.directory, self.style)}
        return own | ({"settings": self.settings.identity()} if self.settings else {})

    def role_counts(self) -> dict[str, int]:
        counts = json.loads((self.directory / "roles.json").read_text())
        return self.settings.counts(counts, text_width(configuration(self.style)))

    def load_model(self, *, precision: str = "fp32", device: str = "cpu", attention: str = "sdpa") -> PreTrainedModel:
        import torch
        from transformers import AutoModelForImageTextToText

        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        model: Any
        if self.is_pretrained:
            model = AutoModelForImageTextToText.from_pretrained(
                self.directory, dtype=dtype, attn_implementation=attention, local_files_only=True
            )
        else:
            model = untrained(self.style, attention=attention)
            model.to(dtype)
        if self.settings.tiles:
            take_tiles(model)
        return model.to(device).eval()

    def load_processor(self) -> ProcessorMixin:
        from lmmcl.models.processing.processors import apply_settings

        return apply_settings(build_processor(self.style), self.settings, f"model {self.reference}")

    def save_processor(self, directory: Path) -> None:
        """As it comes: settings of a sweep are written nowhere (see `PretrainedLMM.save_processor`)."""
        build_processor(self.style).save_pretrained(directory)
        if self.settings.tiles:
            write_grids(directory, configuration(self.style)["image_grid_pinpoints"])


def untrained(style: str, *, seed: int = SEED, attention: str = "sdpa") -> Any:
    """A model with random fp32 weights that only `seed` decides; the caller's random state is left as it was."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig

    values = configuration(style)
    config = AutoConfig.for_model(**values)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32, attn_implementation=attention)
    model.generation_config = GenerationConfig(**generation(style))
    return model


@cache
def _digest(directory: Path, style: str) -> str:
    weights = directory / WEIGHTS
    if weights.exists():
        return hashlib.sha256(weights.read_bytes()).hexdigest()
    content = json.dumps({"seed": SEED, **configuration(style)}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


MODELS: tuple[LMM, ...] = (
    TinyLMM(
        "tiny-onevision",
        family="llava_onevision",
        style="onevision",
        rules=llava_onevision.RULES,
        description="LLaVA-OneVision in small, pre-trained on drawn scenes; on CPU a stage takes seconds",
    ),
    TinyLMM(
        "tiny-next",
        family="llava_next",
        style="next",
        rules=llava_next.RULES,
        description="LLaVA-NeXT in small, untrained (seeded random weights)",
    ),
    TinyLMM(
        "tiny-qwen",
        family="qwen2_5_vl",
        style="qwen",
        rules=qwen2_5_vl.RULES,
        description="Qwen2.5-VL in small, untrained (seeded random weights)",
    ),
)
