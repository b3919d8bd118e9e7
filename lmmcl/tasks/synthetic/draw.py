"""Pictures drawn by code for the embedded tiny model: 32 × 32 pixels, no fonts, no anti-aliasing, the same bytes everywhere.

A picture's own bytes say on which side it lies (`side_of`): one in four is for testing, the others for training and
pre-training. Two sets on different sides therefore cannot share a picture, whatever their seeds.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lmmcl.tasks.examples import Example, Rows

SIZE = 32
"""Width and height of every picture, in pixels."""

PATCH = 8
"""Width and height of the patches that word tags are made for, in pixels."""

Side = Literal["train", "test"]
Box = tuple[int, int, int, int]
Pixels = NDArray[np.uint8]
T = TypeVar("T")

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 90, 230),
    "yellow": (235, 220, 50),
    "purple": (160, 60, 190),
    "orange": (245, 140, 30),
    "white": (245, 245, 245),
    "pink": (250, 150, 190),
}
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
PATTERNS = ("plain", "striped", "dotted", "checked")


@dataclass(frozen=True)
class Scene:
    """A picture with what is known about it.

    `tags` are (box, words): which words describe which part, the box being (left, top, right, bottom) in pixels with
    right and bottom excluded. `asked` are (benchmark, question, answer) of the held-out benchmarks; empty for a
    picture that merely has a target skill's style.
    """

    image: Image.Image
    tags: tuple[tuple[Box, tuple[str, ...]], ...] = ()
    asked: tuple[tuple[str, str, str], ...] = ()
    caption: str = ""

    def questions(self) -> tuple[tuple[str, str, str], ...]:
        """(benchmark, question, answer), all that can be asked about the picture."""
        return self.asked

    def patch_words(self, share: float = 0.2) -> list[tuple[str, ...]]:
        """The words of each patch, row by row: those whose box covers at least `share` of it, or lies half inside it."""
        patches: list[tuple[str, ...]] = []
        for top in range(0, SIZE, PATCH):
            for left in range(0, SIZE, PATCH):
                words: dict[str, None] = {}
                for (x0, y0, x1, y1), tag_words in self.tags:
                    wide = min(x1, left + PATCH) - max(x0, left)
                    high = min(y1, top + PATCH) - max(y0, top)
                    least = min(share * PATCH * PATCH, 0.5 * (x1 - x0) * (y1 - y0))
                    if wide > 0 and high > 0 and wide * high >= least:
                        words.update(dict.fromkeys(tag_words))
                patches.append(tuple(words))
        return patches


def canvas(colour: tuple[int, int, int]) -> Pixels:
    """An empty picture of one colour."""
    return _ground(colour).copy()


@cache
def _ground(colour: tuple[int, int, int]) -> Pixels:
    pixels = np.empty((SIZE, SIZE, 3), np.uint8)
    pixels[:] = colour
    return pixels


def finish(pixels: Pixels, rng: np.random.Generator, noise: int = 6) -> Image.Image:
    """The picture with a little noise, so that no two are alike."""
    grain = rng.integers(-noise, noise + 1, pixels.shape, dtype=np.int16)
    return Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))


def paint(pixels: Pixels, mask: NDArray[np.bool_], left: int, top: int, colour: tuple[int, int, int]) -> None:
    """Colour the pixels of a mask whose upper left corner lies at (left, top); what falls outside is dropped."""
    high, wide = mask.shape
    y0, x0, y1, x1 = max(0, top), max(0, left), min(SIZE, top + high), min(SIZE, left + wide)
    if y0 < y1 and x0 < x1:
        pixels[y0:y1, x0:x1][mask[y0 - top : y1 - top, x0 - left : x1 - left]] = colour


@cache
def ellipse(wide: int, high: int) -> NDArray[np.bool_]:
    """The mask (high, wide) of an ellipse that fills a box, in exact integer arithmetic."""
    y, x = np.ogrid[:high, :wide]
    return ((2 * x - wide + 1) * high) ** 2 + ((2 * y - high + 1) * wide) ** 2 <= (wide * high) ** 2


@cache
def shape_mask(shape: str, size: int) -> NDArray[np.bool_]:
    """The mask of one of SHAPES in a box of `size` × `size` pixels."""
    y, x = np.ogrid[:size, :size]
    across, down = np.abs(2 * x - size + 1), np.abs(2 * y - size + 1)
    if shape == "circle":
        return ellipse(size, size)
    if shape == "square":
        return np.ones((size, size), bool)
    if shape == "triangle":
        return across <= y + 1 + 0 * x
    if shape == "diamond":
        return across + down <= size
    if shape == "cross":
        parts = 3 if size > 10 else 4  # a small one must not look like a diamond
        return (parts * across <= size) | (parts * down <= size)
    if shape == "ring":
        return ellipse(size, size) & (across**2 + down**2 > (size * 11 // 20) ** 2)
    raise ValueError(f"no shape {shape!r}; there are {', '.join(SHAPES)}")


@cache
def pattern_mask(pattern: str, size: int) -> NDArray[np.bool_]:
    """Where a pattern leaves the object's own colour, (size, size); elsewhere it is dark."""
    y, x = np.ogrid[:size, :size]
    if pattern == "striped":
        return (y // 2 + 0 * x) % 2 == 0
    if pattern == "dotted":
        return ~((y % 4 // 2 == 1) & (x % 4 // 2 == 1))
    if pattern == "checked":
        return (y // 4 + x // 4) % 2 == 0
    if pattern == "plain":
        return np.ones((size, size), bool)
    raise ValueError(f"no pattern {pattern!r}; there are {', '.join(PATTERNS)}")


def darker(colour: tuple[int, int, int], parts: int = 3) -> tuple[int, int, int]:
    """The colour at one part in `parts` of its brightness."""
    return (colour[0] // parts, colour[1] // parts, colour[2] // parts)


def article(words: str) -> str:
    """The words with "a" or "an" before them."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def pick(rng: np.random.Generator, things: Sequence[T]) -> T:
    """One of some things."""
    return things[int(rng.integers(len(things)))]


def sample(rng: np.random.Generator, things: Sequence[T], count: int) -> list[T]:
    """Some different ones of some things, in random order."""
    return [things[int(at)] for at in rng.permutation(len(things))[:count]]


def lettered(truth: str, pool: Sequence[str]) -> tuple[str, str]:
    """(lines "A. …", letter of the truth): all of a pool, in its own order."""
    lines = "\n".join(f"{letter}. {name}" for letter, name in zip(LETTERS, pool, strict=False))
    return lines, LETTERS[pool.index(truth)]


def side_of(image: Image.Image) -> Side:
    """The side that a picture lies on, told by its bytes."""
    return "test" if zlib.crc32(image.tobytes()) % 4 == 0 else "train"


def drawn(draw: Callable[[np.random.Generator], Scene], seed: Sequence[int], side: Side = "train") -> Scene:
    """The first picture on a side that a seed gives."""
    for attempt in range(1000):
        scene = draw(np.random.default_rng([*seed, attempt]))
        if side_of(scene.image) == side:
            return scene
    raise RuntimeError(f"no picture on the side {side!r} in 1000 attempts: does it vary at all?")


Maker = Callable[[np.random.Generator, str, Side], Example]


@dataclass(eq=False)
class Examples(Rows):
    """Examples in a fixed order, each drawn when it is first asked for.

    `make(rng, id, side)` draws one. Each has a seed of its own, so that the first N are a sample, whatever N is.
    """

    name: str
    side: Side
    total: int
    make: Maker
    _made: dict[int, Example] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return self.total

    def row(self, index: int) -> Example:
        if index not in self._made:
            self._made[index] = self._draw(index)
        return self._made[index]

    @property
    def _prefix(self) -> str:
        return f"{self.name}-{self.side}-"

    def find(self, id: str) -> Example | None:
        """The example called `id`, without drawing others; None where there is no such."""
        number = id.removeprefix(self._prefix)
        if number == id or not number.isdecimal() or int(number) >= self.total:
            return None
        return self[int(number)]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": {}}  # drawing again costs less than sending pictures

    def _draw(self, index: int) -> Example:
        origin = [zlib.crc32(self.name.encode()), 0 if self.side == "train" else 1, index]
        for attempt in range(1000):
            example = self.make(np.random.default_rng([*origin, attempt]), f"{self._prefix}{index}", self.side)
            image = example.images[0]
            if isinstance(image, Image.Image) and side_of(image) == self.side:
                return example
        raise RuntimeError(f"{self.name}: no picture on the side {self.side!r} in 1000 attempts")


@cache
def examples(name: str, side: Side, count: int, make: Maker) -> Examples:
    """The one sequence of these examples in this process: cheap to ask for again."""
    return Examples(name, side, count, make)
