"""A `save_pretrained` directory as a model: its configuration gives the family, its bytes give the identity."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmcl.errors import UserError
from lmmcl.models.architecture import Architecture, dropout_parts, get_architecture
from lmmcl.models.families.generic import REPARTITIONED, VERSION, generic_roles, guess_architecture
from lmmcl.models.inputs.model_settings import AS_IT_COMES, ModelSettings, text_width
from lmmcl.models.inventory import count_roles, meta_model, parameter_counts, piece_counts
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
from lmmcl.models.roles import covers
from lmmcl.tasks.files.digest import DigestCache, FileState, state_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


OPTIONAL = ("torchvision", "timm")
"""Libraries that some classes of transformers are defined with alone."""
PROCESSOR_VERSION = 1
"""Raised when the rules of loading a processor change: what was loaded is remembered under it."""
_DIGESTS: dict[tuple[FileState, ...], list[str]] = {}
"""Of the files of models that this process has looked at: where the digest cache cannot be written, they are read once."""


@dataclass(frozen=True)
class LocalModel(PretrainedLMM):
    """The model in `directory`, an absolute path. Equal content is the same model wherever it lies."""

    directory: Path
    thinking: bool = False
    settings: ModelSettings = AS_IT_COMES

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration; raises UserError when the directory holds none that names a `model_type`."""
        path = self.directory / CONFIG
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{CONFIG} not found: expected a save_pretrained directory", file=self._place) from None
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
        states = tuple(state_of(path) for path in files)
        digests = _DIGESTS.get(states) or DigestCache().digests(states)
        if all(state.settled for state in states):
            _DIGESTS[states] = digests
        names = [path.relative_to(self.directory).as_posix() for path in files]
        stops = generation_stops(self.directory, self.config, place=self._place)
        settings: dict[str, Any] = {f"{GENERATION}: eos_token_id": stops} if stops is not None else {}
        return _hash({**settings, **dict(zip(names, digests, strict=True))})

    @cached_property
    def architecture(self) -> Architecture:  # type: ignore[override]
        """The family of the configuration's `model_type`, or a guess from the names of the modules."""
        model_type = self.config["model_type"]
        return self.settings.seen_by(get_architecture(model_type) or guess_architecture(model_type))

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
            raise UserError("no processor found (processor_config.json, tokenizer files)", file=self._place)

    def load_model(self, *, precision: str = "fp32", device: str = "cpu", attention: str = "sdpa") -> PreTrainedModel:
        """As every model; raises UserError for files that are no longer those that the key was computed of."""
        if self._digest_now() != self.digest:
            raise UserError("its files changed since the sweep was read; run again", file=self._place)
        return super().load_model(precision=precision, device=device, attention=attention)

    def _own_roles(self, names: Iterable[str]) -> dict[str, str]:
        """By the rules of the family's file; where it has none, or the parts are others than it knows, by the modules."""
        names = list(names)
        if self.is_known and covers(self.rules, names):
            return super()._own_roles(names)
        roles = self._roles
        if unknown := [name for name in names if name not in roles]:
            raise UserError(
                f"{len(unknown)} parameters are not in the model that its configuration describes ({unknown[0]})",
                file=self._place,
            )
        return {name: roles[name] for name in names}

    @cached_property
    def _roles(self) -> Mapping[str, str]:
        return generic_roles(self._meta_model(), place=self._place)

    def role_counts(self) -> dict[str, int]:
        """Built without memory from the configuration the first time (needs torch), then remembered.

        Raises UserError when the weights lack some of the tensors, so that a plan tells it.
        """
        rules = [[rule.pattern, rule.role] for rule in self.rules] if self.is_known else []
        key = _hash(["roles", self.config, rules, VERSION])
        cache = DigestCache()
        found = cache.recall(key)
        counts = json.loads(found) if found else self._count()
        if not found:
            cache.remember(key, json.dumps(counts))
        self._check_processor()
        self._check_complete()
        if not self.is_known:
            _warn_of_modules(self._place, self.config["model_type"])
        return self.settings.counts(counts, text_width(self.config))

    def _check_complete(self) -> None:
        """Hold the names of the tensors to those of the architecture, without reading their values; remembered."""
        key, cache = _hash(["complete", self.digest]), DigestCache()
        if "quantization_config" in self.config or cache.recall(
            key
        ):  # a quantised model is looked at when it is loaded
            return
        load_whole(self.source(), place=self._place, device_map="meta")
        cache.remember(key, "yes")

    def _check_processor(self) -> None:
        """Load the processor once and try it, so that a plan says what a run would meet; remembered for the libraries here."""
        libraries = [version("transformers"), *(name for name in OPTIONAL if find_spec(name) is not None)]
        key, cache = _hash(["processor", self.digest, libraries, PROCESSOR_VERSION]), DigestCache()
        if cache.recall(key):
            return
        from lmmcl.models.processing.processor_probe import try_processor

        try_processor(self.load_processor(), self._place)
        cache.remember(key, "yes")

    def _count(self) -> dict[str, int]:
        model = self._meta_model()
        sizes = parameter_counts(model)
        roles = self._own_roles(sizes)
        return count_roles(roles, sizes, piece_counts(model, roles))

    def _meta_model(self) -> Any:
        from transformers import AutoConfig

        from lmmcl.models.model_class import model_class

        try:
            config = AutoConfig.from_pretrained(**self.source())
            model_class(config, self._place)
            return meta_model(config)
        except (
            ValueError,
            ImportError,
        ) as error:  # an architecture that it does not have, or has not without a library
            raise UserError(
                f"transformers cannot build a model of model_type {self.config['model_type']!r} here: "
                f"{str(error).strip().splitlines()[0]}",
                file=self._place,
            ) from error

    @property
    def _place(self) -> str:
        return f"model {self.directory}"


@cache
def _warn_of_modules(place: str, model_type: str) -> None:
    """Once a directory: a sweep asks for its counts many times."""
    warnings.warn(
        f"{place}: no family file for model_type {model_type!r}; the roles of its parameters follow from transformers' modules "
        "(`lmmcl show model` prints them with their shares)",
        UserWarning,
        stacklevel=4,
    )


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
        raise UserError("No such directory", file=f"model {directory}")
    model = LocalModel(directory)
    model.check()
    return model
