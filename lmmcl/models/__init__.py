"""Who is taught: one file a family; models are found by name."""

from __future__ import annotations

import json
from pathlib import Path

from lmmcl.errors import LONGEST_VALUE, UserError, shown
from lmmcl.models.inputs.model_settings import ModelSettings
from lmmcl.models.lmm import LMM
from lmmcl.named_settings import build
from lmmcl.registry import member, members

__all__ = ["LMM", "ModelSettings", "get_model", "model_names"]


def get_model(name: str, folder: Path | None = None) -> LMM:
    """The model called `name`, or the one in the directory `name` (relative to `folder`, default the working directory).

    `NAME+thinking` is the same model, which thinks before it answers, and `NAME+{"max_pixels": 262144}` one with settings.
    Raises UserError with the nearest names, or with what a directory lacks.
    """
    from lmmcl.models.inputs.model_settings import MARK
    from lmmcl.models.local_model import is_path, local_model
    from lmmcl.models.pretrained import THINKING

    plain, mark, settings = name.partition(f"{MARK}{{")
    if mark:
        return get_model(plain, folder).with_settings(_settings(plain, "{" + settings))
    if name.endswith(THINKING):
        return get_model(name.removesuffix(THINKING), folder).with_thinking()
    if is_path(name):
        return local_model(name, folder)
    try:
        return member(__name__, "MODELS", "model", name)
    except UserError as error:
        if len(name) <= LONGEST_VALUE and ((folder or Path()) / name / "config.json").is_file():
            return local_model(name, folder)
        raise UserError(f"{error.message} (or the path of a save_pretrained directory)") from None


def _settings(name: str, written: str) -> ModelSettings:
    try:
        return build(ModelSettings, name, json.loads(written))
    except ValueError as error:
        raise UserError(f'settings of {name} are JSON such as {{"square": true}}, not {shown(written)}') from error


def model_names() -> list[str]:
    """Names of all models that ship."""
    return list(members(__name__, "MODELS"))
