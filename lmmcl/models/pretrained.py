"""What models of the hub and models in local directories share: loading through transformers, by `from_pretrained`."""

from __future__ import annotations

import json
import os
import shutil
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmcl.models.architecture import Architecture
from lmmcl.models.inputs.many_tiles import take_tiles, write_grids
from lmmcl.models.inputs.model_settings import MARK, ModelSettings
from lmmcl.models.lmm import LMM
from lmmcl.models.model_folder import PROCESSOR_FILES, check_loaded
from lmmcl.models.roles import RoleRule

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin


THINKING = "+thinking"
"""Behind the name of a model: the same model, which thinks before it answers."""


def named(reference: str, settings: ModelSettings) -> str:
    """The reference of a model with settings: `llava-1.5-7b+{"square":true}`."""
    if not settings:
        return reference
    return f"{reference}{MARK}{json.dumps(settings.identity(), sort_keys=True, separators=(',', ':'))}"


class PretrainedLMM(LMM):
    """An LMM that transformers' `from_pretrained` loads from a place."""

    architecture: Architecture
    thinking: bool
    """Whether it thinks before it answers, where its chat template can ask for that."""

    @abstractmethod
    def source(self) -> dict[str, Any]:
        """Where the files are: keyword arguments of `from_pretrained`."""

    @abstractmethod
    def files(self) -> Path:
        """The directory on this machine with (at least) the files of the processor."""

    @property
    def family(self) -> str:  # type: ignore[override]
        """The `model_type` of the architecture."""
        return self.architecture.name

    @property
    def rules(self) -> tuple[RoleRule, ...]:  # type: ignore[override]
        """How the parameters partition into roles."""
        return self.architecture.rules

    @property
    def dropout_parts(self) -> tuple[str, ...]:
        return self.architecture.dropout

    def reading(self) -> dict[str, Any]:
        """What of an identity tells how dialogues become tokens; empty where it never changed."""
        version = self.architecture.dialogues
        own: dict[str, Any] = {"dialogues": version} if version > 1 else {}
        own |= {"thinking": True} if self.thinking else {}
        return own | ({"settings": self.settings.identity()} if self.settings else {})

    def with_thinking(self) -> LMM:
        return replace(self, thinking=True)  # type: ignore[type-var]  # each of them is a dataclass

    def named(self, reference: str) -> str:
        """What `get_model` finds this model by, with its settings, where it finds the plain one by `reference`."""
        return named(f"{reference}{THINKING if self.thinking else ''}", self.settings)

    def about(self) -> dict[str, str]:
        return self.told()

    def told(self) -> dict[str, str]:
        """What its family's file and its settings say of it."""
        facts = {"family": self.family, "chat": self.architecture.chat, "images": self.architecture.images}
        return facts | {name: str(value) for name, value in self.settings.identity().items()}

    def load_model(self, *, precision: str = "fp32", device: str = "cpu", attention: str = "sdpa") -> PreTrainedModel:
        self.check()
        import torch
        from transformers import AutoConfig

        from lmmcl.models.model_class import attention_for, model_class

        place = f"model {self.reference}"
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        cls = model_class(AutoConfig.from_pretrained(**self.source()), place)
        used = attention_for(cls, attention, place)
        model = load_whole(self.source(), place=place, dtype=dtype, attn_implementation=used)
        if self.settings.tiles:
            take_tiles(model)
        return model.to(device).eval()

    def check_processor(self) -> None:
        """Raises UserError when what the processor is loaded from is not at hand."""
        self.check()

    def load_processor(self) -> ProcessorMixin:
        self.check_processor()
        from lmmcl.models.processing.processors import apply_settings, load_processor
        from lmmcl.models.processing.rendering import let_think

        processor: Any = load_processor(self.architecture, self.source())
        if self.thinking:
            let_think(processor, f"model {self.reference}")
        return apply_settings(processor, self.settings, f"model {self.reference}")

    def save_processor(self, directory: Path) -> None:
        """Copy the files of the processor as they came, so that every program reads them as it reads the original.

        Settings of a sweep are in neither: a model that took more tiles is written with the grids that it came with.
        """
        from transformers import AutoConfig

        origin = self.files()
        for pattern in PROCESSOR_FILES:
            for path in sorted(origin.glob(pattern)):
                target = directory / path.relative_to(origin)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        if self.settings.tiles:
            write_grids(directory, AutoConfig.from_pretrained(**self.source()).image_grid_pinpoints)


def load_whole(source: Mapping[str, Any], *, place: str, **more: Any) -> Any:
    """What `from_pretrained` loads from `source`, all of it from there; `more` are keywords of `from_pretrained`.

    Raises UserError, with the names, where the checkpoint lacks tensors: transformers would draw them at random. What it
    holds beyond the model is named in a warning.
    """
    import torch
    from transformers import AutoModelForImageTextToText
    from transformers.utils import logging as transformers_logging

    if not torch.cuda.is_available():
        os.environ.setdefault(
            "DS_ACCELERATOR", "cpu"
        )  # DeepSpeed, imported on the way, would tell it on standard output
    transformers_logging.disable_progress_bar()  # many processes load models at once, and nobody watches them
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # its report is ours to tell
    try:
        loaded: Any = AutoModelForImageTextToText.from_pretrained(  # a pair, because of output_loading_info
            **source, output_loading_info=True, ignore_mismatched_sizes=True, **more
        )
    finally:
        transformers_logging.set_verbosity(level)
    model, info = loaded
    check_loaded(info, place=place)
    return model
