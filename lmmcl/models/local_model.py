"""A `save_pretrained` directory as a model: the family is told by its configuration, the identity by its bytes."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmcl.errors import UserError
from lmmcl.models.architecture import Architecture, dropout_parts, get_architecture
from lmmcl.models.families.generic import VERSION, generic_roles, guess_architecture
from lmmcl.models.inventory import count_roles, meta_model, parameter_counts
from lmmcl.models.lmm import LMM
from lmmcl.models.model_folder import (
    CONFIG,
    GENERATION,
    check_no_adapter,
    content_files,
    generation_stops,
    weight_files,
)
from lmmcl.models.pretrained import PretrainedLMM, load_whole
from lmmcl.models.roles import summary
from lmmcl.tasks.files.digest import DigestCache, state_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class LocalModel(PretrainedLMM):
    """The model in `directory`, an absolute path. Equal content is the same model wherever it lies."""

    directory: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration; raises UserError when the directory holds none that names a `model_type`."""
        path = self.directory / CONFIG
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(
                f"there is no {CONFIG}: a save_pretrained directory is expected", file=self._place
            ) from None
        except (OSError, ValueError) as error:
            raise UserError(f"{CONFIG} cannot be read: {error}", file=self._place) from error
        if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
            raise UserError(f"{CONFIG} names no model_type", file=self._place)
        return config

    @cached_property
    def digest(self) -> str:
        """SHA-256 that stands for the bytes of configuration, weights and processor, and for the tokens that end an answer."""
        return self._digest_now()

    def _digest_now(self) -> str:
        files = content_files(self.directory)
        digests: list[Any] = [
            *DigestCache().digests([state_of(path) for path in files])
        ]  # remembered by each file's state
        names = [path.relative_to(self.directory).as_posix() for path in files]
        stops = generation_stops(self.directory, self.config, place=self._place)
        said = {f"{GENERATION}: eos_token_id": stops} if stops is not None else {}
        return _hash({**dict(zip(names, digests, strict=True)), **said})

    @cached_property
    def architecture(self) -> Architecture:  # type: ignore[override]
        """The family of the configuration's `model_type`, or a guess from the names of the modules."""
        return get_architecture(self.config["model_type"]) or guess_architecture(self.config["model_type"])

    @property
    def is_known(self) -> bool:
        """Whether the family has a file; if not, roles are guessed."""
        return get_architecture(self.config["model_type"]) is not None

    @property
    def name(self) -> str:  # type: ignore[override]
        """The directory's own name and the beginning of the digest."""
        return f"{re.sub(r'[^A-Za-z0-9_.-]', '_', self.directory.name).lstrip('.-_') or 'model'}-{self.digest[:8]}"

    @property
    def label(self) -> str:
        return f"{self.config['model_type']}-{self.digest[:12]}"

    @property
    def reference(self) -> str:
        return str(self.directory)

    @property
    def description(self) -> str:
        """For lists."""
        return f"{self.config['model_type']} in {self.directory}"

    def identity(self) -> dict[str, Any]:
        return {"model_type": self.config["model_type"], "digest": self.digest}

    def about(self) -> dict[str, str]:
        return {"directory": str(self.directory), "digest": self.digest, **super().about()}

    @property
    def dropout_parts(self) -> tuple[str, ...]:
        return dropout_parts(self.config, self.architecture.dropout)

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
        weight_files(self.directory, self.config, place=self._place)
        check_no_adapter(self.directory, place=self._place)
        if not (any(self.directory.glob("*processor_config.json")) and any(self.directory.glob("tokenizer*"))):
            raise UserError("there is no processor (processor_config.json, tokenizer files)", file=self._place)

    def load_model(self, *, precision: str = "fp32", device: str = "cpu", attention: str = "sdpa") -> PreTrainedModel:
        """As every model; raises UserError for files that are no longer those that the key was computed of."""
        if self._digest_now() != self.digest:
            raise UserError("its files changed since the sweep was read; run again", file=self._place)
        return super().load_model(precision=precision, device=device, attention=attention)

    def roles_of(self, names: Iterable[str]) -> dict[str, str]:
        return super().roles_of(names) if self.is_known else generic_roles(names, model=self._place)

    def role_counts(self) -> dict[str, int]:
        """Built without memory from the configuration the first time (needs torch), then remembered.

        Raises UserError when the weights lack some of the tensors, so that a plan tells it.
        """
        rules = [[rule.pattern, rule.role] for rule in self.rules] if self.is_known else VERSION
        key = _hash(["roles", self.config, rules])
        cache = DigestCache()
        found = cache.recall(key)
        counts = json.loads(found) if found else self._count()
        if not found:
            cache.remember(key, json.dumps(counts))
        self._check_complete()
        if not self.is_known:
            warnings.warn(self._partition(counts), UserWarning, stacklevel=2)
        return counts

    def _check_complete(self) -> None:
        """Hold the names of the tensors to those of the architecture, without reading their values; remembered."""
        key, cache = _hash(["complete", self.digest]), DigestCache()
        if "quantization_config" in self.config or cache.recall(
            key
        ):  # a quantised model is looked at when it is loaded
            return
        load_whole(self.source(), place=self._place, device_map="meta")
        cache.remember(key, "yes")

    def _count(self) -> dict[str, int]:
        from transformers import AutoConfig

        try:
            config = AutoConfig.from_pretrained(**self.source())
            sizes = parameter_counts(meta_model(config))
        except ValueError as error:  # transformers' answer to an architecture that it does not have, or not for images
            raise UserError(
                f"model_type {self.config['model_type']!r} is none that transformers builds for image and text: "
                f"{str(error).splitlines()[0]}",
                file=self._place,
            ) from error
        return count_roles(self.roles_of(sizes), sizes)

    def _partition(self, counts: dict[str, int]) -> str:
        folded: dict[str, int] = {}
        for role, parameters in counts.items():
            folded[summary([role])[0]] = folded.get(summary([role])[0], 0) + parameters
        lines = "".join(f"\n  {role}: {parameters:,}" for role, parameters in folded.items())
        return (
            f"{self._place}: no family file for model_type {self.config['model_type']!r}; "
            f"its parts were recognised by their names, check them:{lines}"
        )

    @property
    def _place(self) -> str:
        return f"model {self.directory}"


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def is_path(name: str) -> bool:
    """Whether a model's name is a path to a directory."""
    return "/" in name or name.startswith((".", "~"))


def local_model(name: str, folder: Path | None = None) -> LMM:
    """The model in the directory `name`, relative to `folder` (default: where the program runs).

    Raises UserError when there is no such directory, or it holds no model.
    """
    path = Path(name).expanduser()
    directory = (path if path.is_absolute() else (folder or Path()) / path).resolve()
    if not directory.is_dir():
        raise UserError("there is no such directory", file=f"model {directory}")
    model = LocalModel(directory)
    model.check()
    return model
