"""The rows of a task of lmms-eval: what its functions get to see, with a task object of our own in place of lmms-eval's."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as pil

from lmmcl.errors import UserError
from lmmcl.tasks.lmms_eval.task_rows import Questions


def task(rows: dict[str, list], features: dict[str, Any]) -> Any:
    def doc_to_messages(doc: dict[str, Any]) -> list[dict[str, Any]]:
        several = doc["images"] if "images" in doc else [doc["image"]]
        parts = [{"type": "image", "url": image.convert("RGB")} for image in several]
        return [{"role": "user", "content": [*parts, {"type": "text", "text": "what?"}]}]

    return SimpleNamespace(
        eval_docs=Dataset.from_dict(rows, features=Features(features)),
        doc_to_messages=doc_to_messages,
        doc_to_target=lambda doc: doc["answer"],
        config=SimpleNamespace(doc_to_choice=None),
    )


def encoded(image: pil.Image, kind: str = "PNG", **more: Any) -> dict[str, Any]:
    file = io.BytesIO()
    image.save(file, kind, **more)
    return {"bytes": file.getvalue(), "path": None}


RAMP = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)


def test_a_task_gets_to_see_images_as_they_are_shown_everywhere() -> None:
    tags = pil.Exif()
    tags[0x0112] = 6
    files = [
        encoded(pil.new("RGBA", (8, 8))),
        encoded(pil.fromarray(RAMP)),
        encoded(pil.new("RGB", (8, 4)), "JPEG", exif=tags),
    ]
    text = Value("string")
    questions = Questions("t", task({"image": files, "answer": ["a"] * 3}, {"image": Image(), "answer": text}))
    clear, deep, turned = [questions[row].open_images()[0] for row in range(3)]
    assert clear.getpixel((0, 0)) == (255, 255, 255)
    assert np.abs(np.asarray(deep)[..., 0] - RAMP / 257).max() <= 0.5
    assert turned.size == (4, 8)


def test_several_images_of_a_row_come_in_their_order(tmp_path: Path) -> None:
    pil.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    row = [{"bytes": None, "path": str(tmp_path / "red.png")}, encoded(pil.new("LA", (8, 8)))]
    features = {"images": List(Image()), "answer": Value("string")}
    red, clear = Questions("t", task({"images": [row], "answer": ["a"]}, features))[0].open_images()
    assert red.getpixel((0, 0)) == (255, 0, 0)
    assert clear.getpixel((0, 0)) == (255, 255, 255)


def test_images_of_too_many_pixels_are_refused_and_pillow_is_left_as_it_was() -> None:
    large = encoded(pil.new("1", (12_000, 10_000)))
    features = {"image": Image(), "answer": Value("string")}
    before = pil.MAX_IMAGE_PIXELS
    own = task({"image": [large], "answer": ["a"]}, features)
    with pytest.raises(UserError, match="has more than 100 megapixels; allowed: up to 100"):
        Questions("t", own)[0]
    own.eval_docs = Dataset.from_dict({"answer": ["a"]})
    own.doc_to_messages = lambda doc: [{"role": "user", "content": str(pil.open(io.BytesIO(large["bytes"])))}]
    with pytest.raises(UserError, match="more than 100 megapixels"):
        Questions("t", own)[0]
    assert before == pil.MAX_IMAGE_PIXELS
