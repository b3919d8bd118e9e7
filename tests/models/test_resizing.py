"""Images are resized to the same pixels under every accepted version of Pillow: rows first, then columns."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from PIL import Image

from lmmcl.models import get_model
from lmmcl.models.processing.encode import encode
from lmmcl.models.processing.resizing import image_backend, pin_resizing, resize_rows_first
from lmmcl.tasks.examples import ask

GOLDEN = Path(__file__).parents[1] / "golden" / "pixels.json"
"""Made with Pillow 12.2 and transformers' own `resize`; with ours, Pillow 11.0 to 13.0 give the same."""

SIZES = [(48, 64, 46, 66), (64, 48, 66, 46), (48, 64, 30, 30), (48, 64, 90, 90), (31, 77, 77, 31), (48, 64, 48, 30), (48, 64, 30, 64), (7, 5, 5, 7)]  # fmt: skip
"""Heights and widths, before and after: all four ways to grow and shrink, and one axis alone."""

KERNELS = [getattr(Image.Resampling, name) for name in ("NEAREST", "BOX", "BILINEAR", "HAMMING", "BICUBIC", "LANCZOS")]


def board(height: int, width: int, channels: int) -> np.ndarray:
    """Edges, ramps and noise, as channels first."""
    y, x = np.mgrid[:height, :width]
    noise = (x * 2654435761 + y * 40503) % 251
    planes = [x * 255 // max(1, width - 1), (x // 4 + y // 4) % 2 * 255, noise]
    return np.stack(planes[:channels]).astype(np.uint8)


def digest(array: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def resized() -> dict[str, str]:
    found = {}
    for height, width, *target in SIZES:
        for channels in (1, 3):
            for kernel in KERNELS:
                pixels = resize_rows_first(board(height, width, channels), tuple(target), resample=kernel)
                found[f"{height}x{width} to {target[0]}x{target[1]}, {channels}, {kernel.name}"] = digest(pixels)
    return found


SETTINGS: dict[str, dict[str, Any]] = {
    "Qwen2VL": {"size": {"shortest_edge": 784, "longest_edge": 64 * 784}},
    "LlavaNext": {
        "size": {"shortest_edge": 64},
        "crop_size": {"height": 64, "width": 64},
        "image_grid_pinpoints": [[64, 128]],
    },
    "LlavaOnevision": {"size": {"height": 64, "width": 64}, "image_grid_pinpoints": [[64, 128]]},
    "SmolVLM": {"size": {"longest_edge": 128}, "max_image_size": {"longest_edge": 64}},
    "Idefics3": {"size": {"longest_edge": 128}, "max_image_size": {"longest_edge": 64}},
    "GotOcr2": {"size": {"height": 64, "width": 120}},
    "Gemma3": {"size": {"height": 64, "width": 120}},
    "Blip": {"size": {"height": 64, "width": 120}},
    "CLIP": {"size": {"height": 64, "width": 120}, "do_center_crop": False},
    "Siglip": {"size": {"height": 64, "width": 120}},
    "Pixtral": {"size": {"longest_edge": 90}},
    "DeepseekVL": {"size": {"height": 64, "width": 64}},
    "Janus": {"size": {"height": 64, "width": 64}},
}


def processed(name: str) -> str:
    """A digest of the levels that an image processor makes of an image whose width grows and whose height shrinks."""
    processor = getattr(transformers, f"{name}ImageProcessorPil")(
        do_normalize=False, do_rescale=False, **SETTINGS[name]
    )
    pin_resizing(processor)
    image = Image.fromarray(np.moveaxis(board(90, 100, 3), 0, -1))
    pixels = processor(image, return_tensors="np")["pixel_values"]
    return digest(np.asarray(pixels, np.float32))


def test_pixels_are_those_of_the_golden_file() -> None:
    assert json.loads(GOLDEN.read_text())["resize"] == resized()


@pytest.mark.parametrize("name", SETTINGS)
def test_the_image_processor_of_every_family_resizes_so(name: str) -> None:
    assert json.loads(GOLDEN.read_text())["processors"][name] == processed(name)


@pytest.mark.parametrize("name", SETTINGS)
def test_no_image_processor_calls_transformers_own_function_any_more(name: str) -> None:
    """Some call it in their own modules, past the class that they share; where it is gone, this file is to be looked at."""
    from transformers import image_transforms

    cls = getattr(transformers, f"{name}ImageProcessorPil")
    pin_resizing(cls(**SETTINGS[name]))
    modules = [sys.modules[base.__module__] for base in cls.__mro__]
    held = [value for module in modules for value in vars(module).values()]
    assert resize_rows_first in held
    assert image_transforms.resize not in held


def test_two_axes_are_resized_in_two_calls_rows_first() -> None:
    image = board(48, 64, 3)
    picture = Image.fromarray(np.moveaxis(image, 0, -1))
    expected = picture.resize((66, 48), Image.Resampling.BICUBIC).resize((66, 46), Image.Resampling.BICUBIC)
    assert np.array_equal(resize_rows_first(image, (46, 66), resample=3), np.moveaxis(np.asarray(expected), -1, 0))


@pytest.mark.parametrize(
    "settings", [{}, {"data_format": "channels_last"}, {"return_numpy": False}, {"input_data_format": "channels_first"}]
)
def test_the_size_and_the_form_of_the_result_are_transformers_own(settings: dict[str, Any]) -> None:
    from transformers.image_transforms import resize

    ours, theirs = (np.asarray(each(board(48, 64, 3), (46, 66), **settings)) for each in (resize_rows_first, resize))
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype


def test_what_is_encoded_was_resized_rows_first() -> None:
    processor = get_model("tiny-qwen").load_processor()
    sizes = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}
    processor.image_processor = transformers.Qwen2VLImageProcessorPil(do_normalize=False, size=sizes)
    picture = Image.fromarray(np.moveaxis(board(480, 640, 3), 0, -1))
    encoded = encode(processor, ask("a", "what ?", "a board", picture), with_answer=True)
    assert encoded["image_grid_thw"].tolist() == [[1, 34, 46]]  # 640 × 480 as 644 × 476
    by_hand = picture.resize((644, 480), Image.Resampling.BICUBIC).resize((644, 476), Image.Resampling.BICUBIC)
    plain = transformers.Qwen2VLImageProcessorPil(do_normalize=False, do_resize=False)(by_hand, return_tensors="pt")
    assert (encoded["pixel_values"] == plain["pixel_values"]).all()


def test_an_image_of_fractions_is_resized_in_one_call_as_it_has_no_levels() -> None:
    from transformers.image_transforms import resize

    image = (board(48, 64, 3) / 255).astype(np.float32)
    assert np.array_equal(resize_rows_first(image, (46, 66), resample=2), resize(image, (46, 66), resample=2))


def test_records_can_name_the_backend() -> None:
    assert image_backend(get_model("tiny-onevision").load_processor()) == "pil"


if __name__ == "__main__":  # makes the golden file, under Pillow 12
    golden = {"resize": resized(), "processors": {name: processed(name) for name in SETTINGS}}
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")
