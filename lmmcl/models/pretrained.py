"""What models of the hub and models in local directories share: loading through transformers, by `from_pretrained`."""

from __future__ import annotations

import shutil
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmcl.models.architecture import Architecture
from lmmcl.models.lmm import LMM
from lmmcl.models.roles import RoleRule

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

PROCESSOR_FILES = (
    "*processor_config.json",
    "chat_template.*",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "qformer_tokenizer/*",
)
"""Of a `save_pretrained` directory, the files that make its processor, as glob patterns."""


class PretrainedLMM(LMM):
    """An LMM that transformers' `from_pretrained` loads from a place."""

    architecture: Architecture

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

    def reading(self) -> dict[str, Any]:
        """What of an identity tells how dialogues become tokens; empty where it never changed."""
        version = self.architecture.dialogues
        return {"dialogues": version} if version > 1 else {}

    def about(self) -> dict[str, str]:
        return {"family": self.family, "chat": self.architecture.chat, "images": self.architecture.images}

    def load_model(self, *, precision: str = "fp32", device: str = "cpu", attention: str = "sdpa") -> PreTrainedModel:
        self.check()
        import torch
        from transformers import AutoModelForImageTextToText

        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        model: Any = AutoModelForImageTextToText.from_pretrained(
            **self.source(), dtype=dtype, attn_implementation=attention
        )
        return model.to(device).eval()

    def load_processor(self) -> ProcessorMixin:
        self.check()
        from lmmcl.models.processing.processors import load_processor

        return load_processor(self.architecture, self.source())

    def save_processor(self, directory: Path) -> None:
        """Copy the files of the processor as they came, so that every program reads them as it reads the original."""
        origin = self.files()
        for pattern in PROCESSOR_FILES:
            for path in sorted(origin.glob(pattern)):
                target = directory / path.relative_to(origin)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
