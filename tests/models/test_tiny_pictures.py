"""Drawn pictures of the tiny model are looked up by level, and the text around them is read once: the same rows to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lmmcl.models.processing import encode as encoding
from lmmcl.models.processing.encode import encode
from lmmcl.models.tiny.tiny_processor import build_processor
from lmmcl.tasks.examples import Example, Message, ask


def picture(width: int = 32, height: int = 32, seed: int = 0) -> Image.Image:
    levels = np.random.default_rng([width, height, seed]).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def processed(processor: Any, *images: Image.Image) -> torch.Tensor:
    return processor.image_processor(list(images), return_tensors="pt")["pixel_values"]


@pytest.mark.parametrize("count", [1, 3])
def test_pictures_are_shown_as_the_image_processor_shows_them(count):
    processor = build_processor("onevision")
    images = [picture(), Image.new("RGB", (32, 32), (255, 0, 7)), Image.new("RGB", (32, 32))][:count]
    shown = processor.images_alone(images)
    expected = processed(processor, *images)
    assert shown["pixel_values"].dtype == expected.dtype and shown["pixel_values"].is_contiguous()
    assert torch.equal(shown["pixel_values"], expected)
    assert shown["image_sizes"].tolist() == [[32, 32]] * count


def test_every_channel_has_levels_of_its_own():
    processor = build_processor("onevision")
    processor.image_processor.image_mean = (0.1, 0.5, 0.9)
    shown = processor.images_alone([picture()])["pixel_values"]
    assert torch.equal(shown, processed(processor, picture()))
    usual = build_processor("onevision").images_alone([picture()])["pixel_values"]
    assert torch.equal(shown[:, 1], usual[:, 1]) and not torch.equal(shown[:, 0], usual[:, 0])


@pytest.mark.parametrize("images", [[], [picture(40, 24)], [picture().convert("L")], [picture(), picture(32, 31)]])
def test_other_images_are_left_to_the_image_processor(images):
    assert build_processor("onevision").images_alone(images) is None


def test_so_are_those_that_it_crops():
    processor = build_processor("onevision")
    processor.image_processor.do_center_crop, processor.image_processor.crop_size = True, {"height": 16, "width": 16}
    assert processor.images_alone([picture()]) is None


def dialogue(*contents: str, images: int) -> Example:
    roles = ("user", "assistant") * len(contents)
    messages = tuple(Message(role, content) for role, content in zip(roles, contents, strict=False))
    return Example("dialogue", messages, tuple(picture(seed=seed) for seed in range(images)))


ROWS = [
    ask("first", "What colour is it?", "red", picture(seed=1)),
    ask("the same question", "What colour is it?", "red", picture(seed=2)),
    ask("another answer", "What colour is it?", "blue", picture(seed=1)),
    ask("spelling a token", "What is <pad>?", "red", picture(seed=3)),
    ask("spelling another", "What is <end>?", "red", picture(seed=3)),
    ask("of another size", "What colour is it?", "red", picture(48, 20)),
    ask("without a picture", "What colour is it?", "red"),
    dialogue("<image>\nWhat is it?", "a bird", "<image> And that?", "a crow", images=2),
]


@pytest.mark.parametrize("with_answer", [True, False])
def test_rows_are_what_they_are_when_each_is_read_by_itself(with_answer, monkeypatch):
    processor = build_processor("onevision")
    remembered = [encode(processor, row, with_answer=with_answer) for row in [*ROWS, *ROWS]]
    monkeypatch.setattr(type(processor), "images_alone", lambda self, images: None)
    for row, encoded in zip([*ROWS, *ROWS], remembered, strict=True):
        expected = encode(build_processor("onevision"), row, with_answer=with_answer)
        assert list(encoded) == list(expected), row.id
        assert all(torch.equal(encoded[name], expected[name]) for name in expected), row.id


def test_a_text_is_read_once(monkeypatch):
    read = []
    once_more = encoding._encode_dialogue
    monkeypatch.setattr(encoding, "_encode_dialogue", lambda *args: read.append(args) or once_more(*args))
    processor = build_processor("onevision")
    for row in ROWS[:3]:
        encode(processor, row, with_answer=True)
        encode(processor, row, with_answer=False)
    assert len(read) == 3, "with either answer, and without"


def test_a_cut_row_leaves_the_text_whole_for_the_next():
    processor = build_processor("onevision")
    whole = encode(processor, ROWS[0], with_answer=True)
    cut = encode(processor, ROWS[0], with_answer=True, max_tokens=len(whole["input_ids"]) - 1)
    assert len(cut["input_ids"]) == len(whole["input_ids"]) - 1
    assert torch.equal(encode(processor, ROWS[0], with_answer=True)["input_ids"], whole["input_ids"])
