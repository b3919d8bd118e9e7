"""A `save_pretrained` directory of a language model without images: it can judge answers, and be nothing else here."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmcl.errors import UserError
from lmmcl.models import LMM, get_model
from lmmcl.models.configured import json_digest, read_config
from lmmcl.models.model_folder import CONFIG, content_files, weight_files
from lmmcl.tasks.files.digest import DigestCache, state_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, eq=False)
class TextModel:
    """The causal language model in `directory`, an absolute path; `identity` is its content, and files may be replaced."""

    directory: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """Its configuration."""
        return read_config(self.directory / CONFIG, self.place)

    @cached_property
    def digest(self) -> str:
        """SHA-256 that stands for the bytes of configuration, weights and tokenizer."""
        return self._digest_now()

    def _digest_now(self) -> str:
        files = content_files(self.directory)
        digests = DigestCache().digests([state_of(path) for path in files])
        names = [path.relative_to(self.directory).as_posix() for path in files]
        return json_digest(dict(zip(names, digests, strict=True)))

    @cached_property
    def parameters(self) -> int:
        """Entries of its tensors, read from the headers of its files."""
        from safetensors import safe_open

        total = 0
        for path in weight_files(self.directory, self.config, place=self.place):
            with safe_open(path, framework="numpy") as file:
                total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118  # no mapping
        return total

    @property
    def name(self) -> str:
        """The directory's own name and the beginning of the digest."""
        return f"{re.sub(r'[^A-Za-z0-9_.-]', '_', self.directory.name).lstrip('.-_') or 'model'}-{self.digest[:8]}"

    @property
    def place(self) -> str:
        """For messages."""
        return f"model {self.directory}"

    def identity(self) -> dict[str, Any]:
        """What enters keys."""
        return {"model_type": self.config["model_type"], "digest": self.digest}

    def check(self) -> None:
        """Raises UserError when weights or tokenizer are missing."""
        weight_files(self.directory, self.config, place=self.place)
        if not any(self.directory.glob("tokenizer*")):
            raise UserError("no tokenizer found (tokenizer.json, tokenizer_config.json)", file=self.place)

    def load(self, *, precision: str, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Model and tokenizer; raises UserError for files that are no longer those that the key was computed of."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if self._digest_now() != self.digest:
            raise UserError("its files changed since the sweep was read; run again", file=self.place)
        kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        model = AutoModelForCausalLM.from_pretrained(self.directory, dtype=kind, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(self.directory, local_files_only=True, padding_side="left")
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        placed: Any = model.to(device)  # type: ignore[arg-type]
        return placed.eval(), tokenizer


def is_text_model(directory: Path) -> bool:
    """Whether a directory holds a model that reads no images, as its configuration says."""
    if not (directory / CONFIG).is_file():
        return False
    config = read_config(directory / CONFIG, f"model {directory}")
    return not any(key in config for key in ("vision_config", "vision_tower", "image_token_id", "image_token_index"))


def judge_model(name: str, folder: Path) -> LMM | TextModel:
    """The model that `name` means, which may be a language model without images; paths are relative to `folder`."""
    path = Path(name).expanduser()
    directory = (path if path.is_absolute() else folder / path).resolve()
    if is_text_model(directory):
        model = TextModel(directory)
        model.check()
        return model
    return get_model(name, folder)
