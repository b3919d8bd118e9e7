"""Resizing of images, the same under every accepted version of Pillow.

Pillow resizes in two passes, each of one axis, and rounds to whole levels between them. Before version 13 each row was resized
first; 13 begins with the columns where the width grows and the height shrinks (640 × 480 → 644 × 476, Qwen-VL's own size for a
VGA photograph), which changes pixels by up to 22 of 255 levels. Here rows always come first, as in Pillow 12 and torchvision.

transformers' image processors call one function of theirs, under names of their own modules; it is replaced under those names.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

RESIZING = 2
"""Raised when images would be resized to other pixels; 1 was the order of the Pillow that is installed."""


def resize_rows_first(image: Any, size: tuple[int, int], *args: Any, **settings: Any) -> Any:
    """transformers' `resize` of an array to (height, width), first along its rows and then along its columns."""
    from transformers.image_transforms import resize
    from transformers.image_utils import get_image_size

    channels = settings.get("input_data_format")
    height, width = get_image_size(image, channels) if isinstance(image, np.ndarray) else (image.height, image.width)
    two_axes = height != size[0] and width != size[1]
    if two_axes and image_is_in_levels(image) and settings.get("reducing_gap") is None:
        keeps_format = {**settings, "return_numpy": True, "data_format": channels}
        image = resize(image, (height, size[1]), *args, **keeps_format)
    return resize(image, size, *args, **settings)


def image_is_in_levels(image: Any) -> bool:
    """Whether the image is in whole levels of 0 to 255: fractions would be rounded to such once more between two calls."""
    return isinstance(image, np.ndarray) and image.dtype == np.uint8


def pin_resizing(image_processor: Any) -> None:
    """Have an image processor of transformers resize rows first; one that works with torchvision does so by itself."""
    from transformers import image_transforms

    for base in type(image_processor).__mro__:
        module = sys.modules[base.__module__]
        for name, value in list(vars(module).items()):
            if value is image_transforms.resize and module is not image_transforms:
                setattr(module, name, resize_rows_first)


def image_backend(processor: Any) -> str | None:
    """What resizes the images of a processor: `pil` or `torchvision`; None where transformers does not say."""
    return getattr(processor.image_processor, "backend", None)
