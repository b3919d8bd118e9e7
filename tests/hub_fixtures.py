"""The hub in small: a few rows of every data set in its own schema, below tests/tasks/fixtures. Asks no network."""

from __future__ import annotations

import json
import string
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image

from lmmcl.tasks.hub.client import Hub

FIXTURES = Path(__file__).parent / "tasks" / "fixtures"


class FixtureHub(Hub):
    """Rows from `<owner>--<name>[--<config>]--<split>.jsonl`; their images, {"path": "red.png"}, from `images/`."""

    def __init__(self, downloads: Path) -> None:
        super().__init__(downloads, copies=FIXTURES / "copies", images=FIXTURES / "named")
        self.asked: list[str] = []
        self.shared_letters = SharedLetters()

    def commit(self, hub: str, revision: str) -> str | None:
        return revision if len(revision) == 40 else "f" * 40

    def rows(self, hub: str, split: str, *, config: str | None = None, revision: str = "main") -> Iterator[dict]:
        name = "--".join([hub.replace("/", "--"), *([config] if config else []), split])
        self.asked.append(f"{hub}@{revision}")
        for line in (FIXTURES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            yield {key: with_bytes(value) for key, value in json.loads(line).items()}

    def labels(self, hub: str, split: str, column: str, *, revision: str = "main") -> list[str]:
        return json.loads((FIXTURES / f"{hub.replace('/', '--')}--{split}.labels.json").read_text(encoding="utf-8"))

    def file(self, hub: str, path: str, *, revision: str = "main") -> Path:
        return FIXTURES / "files" / f"{hub.replace('/', '--')}--{path}"

    def archive(self, hub: str, path: str, *, revision: str = "main") -> Path:
        return FIXTURES / "archives" / f"{hub.replace('/', '--')}--{path}"

    def image(self, url: str) -> bytes | None:
        file = FIXTURES / "images" / url.rsplit("/", 1)[1]
        return file.read_bytes() if file.is_file() else None

    def encoder(self) -> SharedLetters:
        return self.shared_letters


class SharedLetters:
    """Instead of CLIP: a text is the letters that it holds, and an image those of the name of its colour."""

    identity = "shared letters"

    def __init__(self) -> None:
        self.seen = 0
        self.colours = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "grey": (1, 1, 1), "gold": (1, 1, 0)}

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        texts = [text.removeprefix("a photo of a ").removeprefix("a photo of ").rstrip(".") for text in texts]
        held = np.array([[letter in text.lower() for letter in string.ascii_lowercase] for text in texts], float)
        return held / np.linalg.norm(held, axis=1, keepdims=True)

    def images(self, images: Sequence[Image]) -> np.ndarray:
        self.seen += len(images)
        return self.texts([self.colour_of(image) for image in images])

    def colour_of(self, image: Image) -> str:
        pixel = np.array(image.getpixel((0, 0)), float)
        shades = {name: np.array(colour, float) for name, colour in self.colours.items()}
        cosine = {n: pixel @ c / np.linalg.norm(pixel) / np.linalg.norm(c) for n, c in shades.items()}
        return max(cosine, key=cosine.__getitem__)


def with_bytes(value: Any) -> Any:
    """A value of a fixture as `datasets` gives it with decoding off: images are their bytes."""
    if isinstance(value, list):
        return [with_bytes(each) for each in value]
    if isinstance(value, dict) and set(value) == {"path"}:
        return {"bytes": (FIXTURES / "images" / value["path"]).read_bytes(), "path": value["path"]}
    return value
