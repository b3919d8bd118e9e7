"""The tiny model's pictures: what is looked up by level is what its image processor makes of them, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lmmcl.models.tiny.tiny_processor import build_processor


@pytest.fixture(scope="module")
def processor() -> Any:
    return build_processor("onevision")


def picture(width: int, height: int) -> Image.Image:
    levels = np.random.default_rng([width, height]).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def shown(processor: Any, *images: Image.Image, **settings: Any) -> torch.Tensor:
    output = processor(text=["<image>" * len(images)], images=list(images), return_tensors="pt", **settings)
    assert output["image_sizes"].tolist() == [[32, 32]] * len(images)
    assert int((output["input_ids"] == processor.tokenizer.convert_tokens_to_ids("<image>")).sum()) == 17 * len(images)
    return output["pixel_values"]


@pytest.mark.parametrize("count", [1, 3])
def test_pictures_of_the_models_own_size_are_shown_as_the_image_processor_shows_them(processor, count):
    images = [picture(32, 32), Image.new("RGB", (32, 32), (255, 0, 7)), Image.new("RGB", (32, 32))][:count]
    pixels = shown(processor, *images)
    expected = processor.image_processor(images, return_tensors="pt")["pixel_values"]
    assert pixels.dtype == expected.dtype and pixels.is_contiguous() and torch.equal(pixels, expected)


@pytest.mark.parametrize("image", [picture(40, 24), picture(32, 32).convert("L")], ids=["another size", "grey"])
def test_other_pictures_are_resized_and_converted(processor, image):
    assert torch.equal(shown(processor, image), processor.image_processor([image], return_tensors="pt")["pixel_values"])


def test_settings_of_a_call_are_heeded(processor):
    pixels = shown(processor, picture(32, 32), images_kwargs={"do_normalize": False})
    assert torch.equal(pixels[0].permute(1, 2, 0), torch.from_numpy(np.asarray(picture(32, 32)) / 255.0).float())


def test_every_channel_has_levels_of_its_own():
    processor = build_processor("onevision")
    processor.image_processor.image_mean = (0.1, 0.5, 0.9)
    expected = processor.image_processor([picture(32, 32)], return_tensors="pt")["pixel_values"]
    assert torch.equal(shown(processor, picture(32, 32)), expected)
    assert not torch.equal(expected[:, 0], shown(build_processor("onevision"), picture(32, 32))[:, 0])


def test_a_cropping_image_processor_is_asked_itself():
    processor = build_processor("onevision")
    processor.image_processor.do_center_crop, processor.image_processor.crop_size = True, {"height": 16, "width": 16}
    pixels = processor(text=["<image>"], images=[picture(32, 32)], return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 16, 16)
