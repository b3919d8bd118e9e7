"""The transformers class of a checkpoint's model, and what it takes: inputs, and implementations of attention."""

from __future__ import annotations

import inspect
import logging
from typing import Any

from lmmcl.errors import UserError

log = logging.getLogger("lmmcl")


def model_class(config: Any, place: str) -> Any:
    """The image-text-to-text class of a configuration; raises UserError when transformers has none that writes text."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise UserError(
            f"transformers has no image-text-to-text model for model_type {config.model_type!r}", file=place
        )
    mapped: Any = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]
    cls = mapped[0] if isinstance(mapped, tuple) else mapped
    if "labels" not in inspect.signature(cls.forward).parameters:
        raise UserError(
            f"{cls.__name__} is not trained to predict the next token (its forward takes no labels)", file=place
        )
    return cls


def forward_inputs(cls: Any) -> tuple[str, ...]:
    """Names of the inputs that the forward of a model class takes."""
    return tuple(name for name in inspect.signature(cls.forward).parameters if name != "self")


def attention_for(cls: Any, wanted: str, place: str) -> str:
    """The implementation of attention to load a model with: `wanted`, or eager for a class that does not have `sdpa`.

    Both compute the same, so a cluster's default does not exclude a model. What is in force is in the record of each stage.
    Raises UserError where flash attention was asked for and the class does not have it.
    """
    if wanted == "sdpa" and not cls._supports_sdpa:
        log.warning("%s: %s has no sdpa attention; eager attention is used", place, cls.__name__)
        return "eager"
    if wanted.startswith("flash") and not cls._supports_flash_attn:
        others = " or ".join(name for name, has in (("sdpa", cls._supports_sdpa), ("eager", True)) if has)
        raise UserError(f"{cls.__name__} has no {wanted}; set attention: {others} in the cluster file", file=place)
    return wanted
