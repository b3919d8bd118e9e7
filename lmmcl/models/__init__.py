"""Who is taught: one file a family; models are found by name."""

from __future__ import annotations

from lmmcl.models.base import LMM
from lmmcl.registry import member, members

__all__ = ["LMM", "get_model", "model_names"]


def get_model(name: str) -> LMM:
    """The model called `name`; raises UserError with the nearest names."""
    return member(__name__, "MODELS", "model", name)


def model_names() -> list[str]:
    """Names of all models that ship."""
    return list(members(__name__, "MODELS"))
