"""What models share whose parts follow from a configuration of their own: their roles, how many parameters each has, and checks."""

from __future__ import annotations

import hashlib
import json
import warnings
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lmmcl.errors import UserError
from lmmcl.models.architecture import Architecture, dropout_parts, get_architecture
from lmmcl.models.families.generic import VERSION, generic_roles, guess_architecture
from lmmcl.models.inputs.model_settings import text_width
from lmmcl.models.inventory import count_roles, meta_model, parameter_counts, piece_counts
from lmmcl.models.model_folder import CONFIG
from lmmcl.models.pretrained import PretrainedLMM, load_whole
from lmmcl.models.roles import covers
from lmmcl.tasks.files.digest import DigestCache

OPTIONAL = ("torchvision", "timm")
"""Libraries that some classes of transformers are defined with alone."""
PROCESSOR_VERSION = 1
"""Raised when the rules of loading a processor change: what was loaded is remembered under it."""


class ConfiguredLMM(PretrainedLMM):
    """An LMM without an inventory that ships: everything about it follows from its `config.json`."""

    @property
    @abstractmethod
    def config(self) -> Mapping[str, Any]:
        """The configuration; raises UserError when there is none that names a `model_type`."""

    @property
    @abstractmethod
    def place(self) -> str:
        """How messages call it."""

    @property
    @abstractmethod
    def content(self) -> str:
        """What stands for the bytes of its files: what was found out about them is remembered under it."""

    @property
    def has_weights(self) -> bool:
        """Whether its weights lie on this machine, so that they can be looked at."""
        return True

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
    def dropout_parts(self) -> tuple[str, ...]:
        return dropout_parts(self.config, self.architecture.dropout)

    def _own_roles(self, names: Iterable[str]) -> dict[str, str]:
        """By the rules of the family's file; where it has none, or the parts are others than it knows, by the modules."""
        names = list(names)
        if covers(self.rules, names):
            return super()._own_roles(names)
        roles = self._roles
        if unknown := [name for name in names if name not in roles]:
            raise UserError(
                f"{len(unknown)} parameters are not in the model that its configuration describes ({unknown[0]})",
                file=self.place,
            )
        return {name: roles[name] for name in names}

    @cached_property
    def _roles(self) -> Mapping[str, str]:
        return generic_roles(self._meta_model(), place=self.place)

    def role_counts(self) -> dict[str, int]:
        """Built without memory from the configuration the first time (needs torch), then remembered.

        Raises UserError when the weights lack some of the tensors, so that a plan tells it.
        """
        rules = [[rule.pattern, rule.role] for rule in self.rules] if self.is_known else []
        key = json_digest(["roles", self.config, rules, VERSION])
        cache = DigestCache()
        remembered = cache.recall(key)
        counts = json.loads(remembered) if remembered else self._count()
        if not remembered:
            cache.remember(key, json.dumps(counts))
        self._check_processor()
        self._check_complete()
        if not self.is_known:
            _warn_of_modules(self.place, self.config["model_type"])
        return self.settings.counts(counts, text_width(self.config))

    def _check_complete(self) -> None:
        """Hold the names of the tensors to those of the architecture, without reading their values; remembered."""
        key, cache = json_digest(["complete", self.content]), DigestCache()
        if "quantization_config" in self.config or cache.recall(key):  # a quantised one is looked at when it is loaded
            return
        if not self.has_weights:  # nor is one that has yet to be downloaded
            return
        load_whole(self.source(), place=self.place, device_map="meta")
        cache.remember(key, "yes")

    def _check_processor(self) -> None:
        """Load the processor once and try it, so that a plan says what a run would meet; remembered for the libraries here."""
        libraries = [version("transformers"), *(name for name in OPTIONAL if find_spec(name) is not None)]
        key, cache = json_digest(["processor", self.content, libraries, PROCESSOR_VERSION]), DigestCache()
        if cache.recall(key):
            return
        from lmmcl.models.processing.processor_probe import try_processor

        try_processor(self.load_processor(), self.place)
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
            model_class(config, self.place)
            return meta_model(config)
        except (
            ValueError,
            ImportError,
        ) as error:  # an architecture that it does not have, or has not without a library
            raise UserError(
                f"transformers cannot build a model of model_type {self.config['model_type']!r} here: "
                f"{str(error).strip().splitlines()[0]}",
                file=self.place,
            ) from error


@cache
def _warn_of_modules(place: str, model_type: str) -> None:
    """Once a directory: a sweep asks for its counts many times."""
    warnings.warn(
        f"{place}: no family file for model_type {model_type!r}; the roles of its parameters follow from transformers' modules "
        "(`lmmcl show model` prints them with their shares)",
        UserWarning,
        stacklevel=4,
    )


def read_config(path: Path, place: str) -> dict[str, Any]:
    """A `config.json`; raises UserError when it cannot be read, or names no `model_type`."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{CONFIG} not found: expected a save_pretrained directory", file=place) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{CONFIG} cannot be read: {error}", file=place) from error
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise UserError(f"{CONFIG} names no model_type", file=place)
    return config


def json_digest(value: Any) -> str:
    """A SHA-256 that stands for a value of plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
