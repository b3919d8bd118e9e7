"""Who is taught: one file a family; models are found by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmmcl.models.inputs.model_settings import ModelSettings
from lmmcl.models.lmm import LMM
from lmmcl.registry import members

__all__ = ["LMM", "ModelSettings", "get_model", "model_names"]


def get_model(name: str | Mapping[str, Any], folder: Path | None = None) -> LMM:
    """The model that `name` means (see `lmmcl.models.sources.reference`); paths are relative to `folder`, by default the
    working directory. Raises UserError with the nearest names, or with what is lacking.
    """
    from lmmcl.models.sources.reference import find_model

    return find_model(name, folder or Path())


def model_names() -> list[str]:
    """Names of all models that ship."""
    return list(members(__name__, "MODELS"))
