"""Small pictures are encoded once; what they are in the page does not depend on that."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from lmmcl.reports.page import question_pictures
from lmmcl.reports.page.question_pictures import encode_picture


@pytest.fixture(autouse=True)
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is encoded, by kind; nothing is remembered at first."""
    kinds: list[str] = []
    encode = question_pictures._encode
    monkeypatch.setattr(question_pictures, "_remembered", {})
    monkeypatch.setattr(question_pictures, "_encode", lambda image, kind: kinds.append(kind) or encode(image, kind))
    return kinds


def noise(side: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def test_a_picture_is_encoded_once_whoever_shows_it(encoded: list[str]) -> None:
    first, again, other = (
        encode_picture(noise(32)),
        encode_picture(noise(32), 96, 96),
        encode_picture(noise(32, seed=1)),
    )
    assert first == again != other
    assert encoded == ["png", "png"]
    file = io.BytesIO()
    noise(32).save(file, "png", optimize=True)
    assert first == (file.getvalue(), "png")


def test_pictures_of_other_pixels_size_or_mode_are_told_apart() -> None:
    flat = Image.new("RGB", (8, 2), "red")
    contents = {encode_picture(image)[0] for image in (flat, Image.new("RGB", (2, 8), "red"), flat.convert("L"))}
    assert len(contents) == 3


def test_what_does_not_follow_from_pixels_and_large_pictures_are_encoded_each_time(encoded: list[str]) -> None:
    described, indexed = noise(32), noise(32).quantize(4)
    described.info["icc_profile"] = b"profile"
    for image in (described, indexed, noise(200)):
        for _ in range(2):
            encode_picture(image.copy())
    assert encoded == ["png", "png", "png", "png", "jpeg", "jpeg"]
    assert not question_pictures._remembered


def test_no_more_are_remembered_than_a_page_of_a_small_sweep_has(
    monkeypatch: pytest.MonkeyPatch, encoded: list[str]
) -> None:
    monkeypatch.setattr(question_pictures, "REMEMBERED", 2)
    for seed in (0, 1, 2, 2, 0):
        encode_picture(noise(16, seed))
    assert len(encoded) == 4
    assert len(question_pictures._remembered) == 2
