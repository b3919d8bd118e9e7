"""Counting: how many things of one shape are in the image, one to nine, sometimes among things of another shape.

The counterpart of PixmoCount ("How many {label} are in this image?").

Example row: "<image> How many crosses are in this image?" → "8"
"""

from __future__ import annotations

from functools import partial

import numpy as np

from lmmcl.tasks.examples import Example, ask
from lmmcl.tasks.skills import Benchmark, Skill
from lmmcl.tasks.synthetic import draw
from lmmcl.tasks.synthetic.draw import Box, Scene, Side, pick, sample

PLURALS = {
    "circle": "circles",
    "square": "squares",
    "triangle": "triangles",
    "diamond": "diamonds",
    "cross": "crosses",
    "ring": "rings",
}
MOST = 9
OTHERS = 3
"""The most things of another shape in an image."""
EDGE = 7
"""Width and height of a thing in pixels: the least at which the six shapes look different (a square is one less)."""


def crowd(rng: np.random.Generator, shape: str, count: int, other: str, others: int) -> Scene:
    """`count` things of a shape and `others` of another, each in its own cell of a 4 × 4 grid, in two colours."""
    pixels = draw.canvas(pick(rng, ((18, 18, 22), (40, 40, 46), (64, 62, 60))))
    colours = sample(rng, list(draw.COLOURS), 2)
    cells = rng.permutation(16)[: count + others]
    tags: list[tuple[Box, tuple[str, ...]]] = []
    for at, cell in enumerate(cells):
        name, colour = (shape if at < count else other), pick(rng, colours)
        left = int(cell) % 4 * 8 + int(rng.integers(2))
        top = int(cell) // 4 * 8 + int(rng.integers(2))
        draw.paint(pixels, draw.shape_mask(name, EDGE - (name == "square")), left, top, draw.COLOURS[colour])
        tags.append(((left, top, left + EDGE, top + EDGE), ("small", colour, name)))
    caption = PLURALS[shape] + (f" and {PLURALS[other]}" if others else "")
    return Scene(draw.finish(pixels, rng), tuple(tags), (), caption)


def picture(rng: np.random.Generator) -> Scene:
    """A crowd with tags and caption but no number: the style without the skill."""
    shape, other = sample(rng, draw.SHAPES, 2)
    return crowd(rng, shape, int(rng.integers(1, MOST + 1)), other, int(rng.integers(0, OTHERS + 1)))


def make(rng: np.random.Generator, identifier: str, side: Side) -> Example:
    """A question about one crowd."""
    shape, other = sample(rng, draw.SHAPES, 2)
    count = int(rng.integers(1, MOST + 1))
    others = int(rng.integers(1, OTHERS + 1)) if rng.integers(2) else 0
    image = crowd(rng, shape, count, other, others).image
    question = f"How many {PLURALS[shape]} are in this image?"
    return ask(identifier, question, str(count), image, metadata={"label": PLURALS[shape], "others": others})


BENCHMARK = Benchmark(
    name="counting",
    version=1,
    metric="integer",
    load=partial(draw.examples, "counting", "test", 300, make),
    random_order=True,
    max_new_tokens=3,
    description="how many things of a shape there are",
)
SKILLS: tuple[Skill, ...] = (
    Skill(
        name="counting",
        version=1,
        load=partial(draw.examples, "counting", "train", 4000, make),
        random_order=True,
        benchmark=BENCHMARK,
        description="counting one to nine things",
    ),
)
