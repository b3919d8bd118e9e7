"""The images of an example as a processor is shown them: within the pixels, and in the shape, that the model's settings ask for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lmmcl.models.inputs.model_settings import AS_IT_COMES, ModelSettings
from lmmcl.tasks.examples import Example

if TYPE_CHECKING:
    from PIL.Image import Image


def settings_of(processor: Any) -> ModelSettings:
    """The settings of the model that a processor is for."""
    return getattr(processor, "model_settings", None) or AS_IT_COMES


def shown_images(processor: Any, example: Example) -> list[Image]:
    """The decoded images of an example, in order."""
    settings, images = settings_of(processor), example.open_images()
    if settings.max_pixels is not None:
        images = [within(image, settings.max_pixels) for image in images]
    return [padded(image, mean_colour(processor)) for image in images] if settings.square else images


def within(image: Image, pixels: int) -> Image:
    """The image with no more than `pixels` pixels; sides are rounded down, as LLaMA-Factory's `image_max_pixels` has it."""
    width, height = image.size
    if width * height <= pixels:
        return image
    scale = math.sqrt(pixels / (width * height))
    return image.resize((max(1, int(width * scale)), max(1, int(height * scale))))


def padded(image: Image, colour: tuple[int, ...]) -> Image:
    """The image in the middle of a square of `colour`; half a pixel too much goes right or below (LLaVA's `expand2square`)."""
    from PIL import Image as pil

    side = max(image.size)
    square = pil.new("RGB", (side, side), colour)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def mean_colour(processor: Any) -> tuple[int, ...]:
    """What the image processor subtracts, as 8-bit levels: it becomes about zero."""
    return tuple(int(share * 255) for share in processor.image_processor.image_mean)
