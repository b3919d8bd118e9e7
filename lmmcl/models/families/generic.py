"""An architecture without a family file: its parts are found from its modules and its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmmcl.errors import UserError
from lmmcl.models.architecture import Architecture
from lmmcl.models.partition.regions import partition

VERSION = 2
"""Raised whenever the rules change: inventories are remembered under it."""

REPARTITIONED = frozenset(
    {
        "deepseek_ocr2",
        "glm4v_moe",
        "glm5_next",
        "granite_docling",
        "lighton_ocr",
        "minicpm_ocr",
        "minicpmv4_6",
        "minicpmv4_7",
        "mllama",
        "qwen3_5",
        "step3p7",
        "unlimited_ocr",
    }
)
"""Types whose version 1 left parts out: the same recipe trains more of them now, so their keys name the version."""


def guess_architecture(model_type: str) -> Architecture:
    """A family known by its name only."""
    return Architecture(
        name=model_type,
        rules=(),
        processor="AutoProcessor",
        image_processor="AutoImageProcessor",
        chat="not known",
        images="not known",
        dialogues=2,
    )


def generic_roles(model: Any, *, place: str) -> Mapping[str, str]:
    """The role of each parameter of `model`, loaded or on the meta device, by its name.

    Raises UserError that says what belongs to no part that is known, and where there is no language model.
    """
    roles = partition(model)
    names = [name for name, _ in model.named_parameters()]
    if unknown := [name for name in names if name not in roles]:
        modules = sorted({name.rpartition(".")[0] for name in unknown})
        raise _refusal(place, f"{len(unknown)} parameters belong to no part that is known ({', '.join(modules[:3])})")
    if not any(role.startswith("llm.blocks.") for role in roles.values()):
        raise _refusal(place, "no blocks of a language model were found")
    return roles


def _refusal(place: str, what: str) -> UserError:
    return UserError(
        f"{what}; the roles of its parameters do not follow from its modules (a family file can name them: see docs/models.md)",
        file=place,
    )
