"""What is true of every checkpoint of one architecture: a family of models."""

from __future__ import annotations

from dataclasses import dataclass, field

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


def architectures() -> dict[str, Architecture]:
    """All families that have a file, by `model_type`."""
    return members("lmmcl.models", "ARCHITECTURES")


def get_architecture(model_type: str) -> Architecture | None:
    """The family of a `model_type`, or None when it has no file."""
    return architectures().get(model_type)
