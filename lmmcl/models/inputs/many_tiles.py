"""LLaVA-NeXT with the tiles of LMM-CL's scripts: `anyres_max_9` over 36 grids of up to 6 × 6.

transformers has this for LLaVA-OneVision alone: which shapes there are, how many features remain when more than nine tiles'
worth are scaled down, and the scaling. Here LLaVA-NeXT's processor and model are given OneVision's two functions.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

RATIO = "anyres_max_9"
GRID = 6


def pinpoints(edge: int) -> list[list[int]]:
    """All shapes (height, width) of 1 × 1 to 6 × 6 tiles of `edge` pixels."""
    return [[edge * rows, edge * columns] for rows in range(1, GRID + 1) for columns in range(1, GRID + 1)]


def give_tiles(processor: Any) -> None:
    """Have a LLaVA-NeXT processor cut images into up to 36 tiles, and count the features that the model makes of them."""
    crop: Any = processor.image_processor.crop_size
    processor.image_processor.image_grid_pinpoints = pinpoints(crop["height"])
    processor.vision_aspect_ratio = RATIO
    processor.__class__ = processor_class()


def take_tiles(model: Any) -> None:
    """Have a LLaVA-NeXT model scale the features of more than nine tiles down."""
    edge = model.config.vision_config.image_size
    model.config.image_grid_pinpoints = model.model.config.image_grid_pinpoints = pinpoints(edge)
    model.model.__class__ = model_class()


def write_grids(directory: Path, grids: list[list[int]]) -> None:
    """Write the grids of a checkpoint as it came into a saved model's configuration: no other program scales features down."""
    path = directory / "config.json"
    config = {**json.loads(path.read_text(encoding="utf-8")), "image_grid_pinpoints": grids}
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")


@cache
def processor_class() -> Any:
    """The class of processor that counts the image tokens of many tiles; imports transformers."""
    from transformers import LlavaNextProcessor, LlavaOnevisionProcessor

    class ManyTilesLlavaNextProcessor(LlavaNextProcessor):
        """LLaVA-NeXT's processor that counts features as LLaVA-OneVision's does."""

        _get_unpadded_features = LlavaOnevisionProcessor._get_unpadded_features

    return _found_here(ManyTilesLlavaNextProcessor)


@cache
def model_class() -> Any:
    """The class of model that packs the features of many tiles; imports transformers."""
    from transformers.models.llava_next.modeling_llava_next import LlavaNextModel
    from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel

    pack: Any = LlavaOnevisionModel.pack_image_features

    class ManyTilesLlavaNextModel(LlavaNextModel):
        """LLaVA-NeXT's model that packs features as LLaVA-OneVision's does."""

        def pack_image_features(
            self, image_features: Any, image_sizes: Any, vision_feature_select_strategy: Any, image_newline: Any = None
        ) -> Any:
            return pack(self, image_features, image_sizes, image_newline=image_newline, vision_aspect_ratio=RATIO)

    return _found_here(ManyTilesLlavaNextModel)


def _found_here(cls: type) -> type:
    """So that pickle finds the class by its name in this module."""
    cls.__module__, cls.__qualname__ = __name__, cls.__name__
    return cls


def __getattr__(name: str) -> type:
    classes = {"ManyTilesLlavaNextProcessor": processor_class, "ManyTilesLlavaNextModel": model_class}
    if name not in classes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return classes[name]()
