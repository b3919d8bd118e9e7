"""A `save_pretrained` directory as a model: its configuration gives the family, its bytes give the identity."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmcl.errors import UserError
from lmmcl.models.configured import ConfiguredLMM, json_digest, read_config
from lmmcl.models.families.generic import REPARTITIONED, VERSION
from lmmcl.models.inputs.model_settings import AS_IT_COMES, ModelSettings
from lmmcl.models.model_folder import (
    CONFIG,
    GENERATION,
    check_no_adapter,
    content_files,
    generation_stops,
    weight_files,
)
from lmmcl.tasks.files.digest import DigestCache, FileState, state_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


_DIGESTS: dict[tuple[FileState, ...], list[str]] = {}
"""Of the files of models that this process has looked at: where the digest cache cannot be written, they are read once."""


@dataclass(frozen=True)
class LocalModel(ConfiguredLMM):
    """The model in `directory`, an absolute path. Equal content is the same model wherever it lies."""

    directory: Path
    thinking: bool = False
    settings: ModelSettings = AS_IT_COMES

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration; raises UserError when the directory holds none that names a `model_type`."""
        return read_config(self.directory / CONFIG, self.place)

    @property
    def content(self) -> str:
        return self.digest

    @cached_property
    def digest(self) -> str:
        """SHA-256 that stands for the bytes of configuration, weights and processor, and for the tokens that end an answer."""
        return self._digest_now()

    def _digest_now(self) -> str:
        files = content_files(self.directory)
        states = tuple(state_of(path) for path in files)
        digests = _DIGESTS.get(states) or DigestCache().digests(states)
        if all(state.settled for state in states):
            _DIGESTS[states] = digests
        names = [path.relative_to(self.directory).as_posix() for path in files]
        stops = generation_stops(self.directory, self.config, place=self.place)
        settings: dict[str, Any] = {f"{GENERATION}: eos_token_id": stops} if stops is not None else {}
        return json_digest({**settings, **dict(zip(names, digests, strict=True))})

    @property
    def name(self) -> str:  # type: ignore[override]
        """The directory's own name and the beginning of the digest."""
        return f"{re.sub(r'[^A-Za-z0-9_.-]', '_', self.directory.name).lstrip('.-_') or 'model'}-{self.digest[:8]}"

    @property
    def label(self) -> str:
        return f"{self.config['model_type']}-{self.digest[:12]}"

    @property
    def reference(self) -> str:
        return self.named(str(self.directory))

    @property
    def description(self) -> str:
        """For lists."""
        return f"{self.config['model_type']} in {self.directory}"

    def identity(self) -> dict[str, Any]:
        roles = {"roles": VERSION} if self.config["model_type"] in REPARTITIONED else {}
        return {"model_type": self.config["model_type"], "digest": self.digest, **roles, **self.reading()}

    def about(self) -> dict[str, str]:
        return {"directory": str(self.directory), "digest": self.digest, **super().about()}

    def source(self) -> dict[str, Any]:
        return {"pretrained_model_name_or_path": str(self.directory), "local_files_only": True}

    def file(self, name: str) -> Path | None:
        """One file of the directory, or None when it is not there."""
        path = self.directory / name
        return path if path.is_file() else None

    def files(self) -> Path:
        return self.directory

    def check(self) -> None:
        """Raises UserError when configuration, weights or processor are missing, and for an adapter beside the model."""
        weight_files(self.directory, self.config, place=self.place)
        check_no_adapter(self.directory, place=self.place)
        if not (any(self.directory.glob("*processor_config.json")) and any(self.directory.glob("tokenizer*"))):
            raise UserError("no processor found (processor_config.json, tokenizer files)", file=self.place)

    def load_model(self, *, precision: str = "fp32", device: str = "cpu", attention: str = "sdpa") -> PreTrainedModel:
        """As every model; raises UserError for files that are no longer those that the key was computed of."""
        if self._digest_now() != self.digest:
            raise UserError("its files changed since the sweep was read; run again", file=self.place)
        return super().load_model(precision=precision, device=device, attention=attention)

    @property
    def place(self) -> str:
        return f"model {self.directory}"


def local_model(directory: Path) -> LocalModel:
    """The model in `directory`; raises UserError when there is no such directory, or it holds no model."""
    if not directory.is_dir():
        raise UserError("No such directory", file=f"model {directory}")
    model = LocalModel(directory)
    model.check()
    return model
