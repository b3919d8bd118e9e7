"""What is true of every checkpoint of one architecture: a family of models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lmmcl.models.roles import RoleRule
from lmmcl.registry import members


@dataclass(frozen=True)
class Architecture:
    """A family. `name` is the `model_type` of its transformers configuration.

    `processor` and `image_processor` are classes of transformers (or, with a colon, of a module of ours). Images are always
    processed by Pillow and NumPy, also where a faster backend is installed: pixels must not depend on the machine.
    """

    name: str
    rules: tuple[RoleRule, ...] = field(repr=False)
    """Roles by the names of parameters; none: by the modules (see `lmmcl.models.partition`)."""
    processor: str
    image_processor: str
    chat: str
    """How a dialogue is written, in one sentence; the template itself comes with the checkpoint."""
    images: str
    """What an image becomes: resolution, tiles, number of tokens."""
    tokens: int = 1024
    """Tokens of a photograph of 1024 × 768 pixels: what memory and hours are estimated with."""
    dialogues: int = 1
    """Raised when its dialogues become other tokens: enters the identity of its checkpoints."""
    patches: int | None = None
    """Patches that the vision tower sees of that photograph; default as many as tokens."""
    dropout: tuple[str, ...] = ()
    """Parts (first words of roles) that have dropout as the family is shipped; see `dropout_parts`."""


_PARTS = {"vision_config": "vision", "text_config": "llm", "llm_config": "llm", "qformer_config": "qformer"}


def dropout_parts(config: Mapping[str, Any], shipped: Iterable[str] = ()) -> tuple[str, ...]:
    """The parts of a model that have dropout by its configuration, `*` for what belongs to no part.

    `shipped` are those that have it where the configuration does not say. Stages that leave such a part frozen have keys of
    their own: its dropout was active in them once, and is no longer.
    """
    dropping = set(shipped)
    for section, value in config.items():
        part = _PARTS.get(section, "*")
        shares = _dropout_shares({section: value})
        if any(shares):
            dropping.add(part)
        elif shares:
            dropping.discard(part)
    return tuple(sorted(dropping))


def _dropout_shares(config: Mapping[str, Any]) -> list[float]:
    nested = [share for value in config.values() if isinstance(value, Mapping) for share in _dropout_shares(value)]
    return nested + [float(v) for k, v in config.items() if "drop" in k and isinstance(v, int | float)]


def architectures() -> dict[str, Architecture]:
    """All families that have a file, by `model_type`."""
    return members("lmmcl.models", "ARCHITECTURES")


def get_architecture(model_type: str) -> Architecture | None:
    """The family of a `model_type`, or None when it has no file."""
    return architectures().get(model_type)
