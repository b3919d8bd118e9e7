"""Benchmarks beside the skills `birds` and `counting`: the same pictures asked something else, the same question of other pictures.

They fill the two mixed cells of the 2 × 2 of image × text (arXiv 2603.14493); see `lmmcl.reports.image_text_grid`. The tiny model
answers nine in ten of `crowd_presence` before it is taught anything, and of the other two no more than of the skills.

Example row: "<image> Is there a green circle?" → "yes"
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from lmmcl.tasks.examples import Example, ask
from lmmcl.tasks.skills import Benchmark
from lmmcl.tasks.synthetic import birds, draw, drawn_counting
from lmmcl.tasks.synthetic.draw import Maker, Side, article, pick, sample

GROUND = 90
"""Grounds are darker than this in all three colours, and what is drawn on them is brighter in one, but for a bird's eye."""
EYE = 20
DAYLIGHT = 120


def by_day(lesson: Maker, darkest: int, rng: np.random.Generator, identifier: str, side: Side) -> Example:
    """An example of a lesson with its dark ground made light; what is not above `darkest` stays."""
    from PIL import Image

    example = lesson(rng, identifier, side)
    pixels = np.asarray(example.open_images()[0]).astype(np.int16)
    brightest = pixels.max(-1, keepdims=True)
    light = np.where((brightest > darkest) & (brightest < GROUND), pixels + DAYLIGHT, pixels)
    return replace(example, images=(Image.fromarray(light.astype(np.uint8)),))


def crowd_presence(rng: np.random.Generator, identifier: str, side: Side) -> Example:
    """Whether a crowd as in the lessons on counting holds a thing of a colour and a shape; half are not there."""
    shape, other, absent = sample(rng, draw.SHAPES, 3)
    count, others = int(rng.integers(1, drawn_counting.MOST + 1)), int(rng.integers(0, drawn_counting.OTHERS + 1))
    scene = drawn_counting.crowd(rng, shape, count, other, others)
    things = [words for _, words in scene.tags]
    _, colour, there = pick(rng, things)
    yes = bool(rng.integers(2))
    question = f"Is there {article(colour)} {there if yes else absent}?"
    shown = sorted({f"{colour} {shape}" for _, colour, shape in things})
    return ask(identifier, question, "yes" if yes else "no", scene.image, metadata={"things": shown})


def _beside(
    skill: str, image: str, text: str, name: str, metric: str, make: Maker, tokens: int, description: str
) -> Benchmark:
    tags: Mapping[str, Any] = {"image": "ood", "text": "ood", skill: {"image": image, "text": text}}
    load = partial(draw.examples, name, "test", 200, make)
    return Benchmark(
        name, 1, metric, load, max_new_tokens=tokens, description=description, tags=tags, random_order=True
    )


BENCHMARKS: tuple[Benchmark, ...] = (
    _beside(
        "counting",
        "id",
        "ood",
        "crowd_presence",
        "yes_no",
        crowd_presence,
        4,
        "whether a thing is there, on pictures as in counting",
    ),
    _beside(
        "counting",
        "ood",
        "id",
        "counting_by_day",
        "integer",
        partial(by_day, drawn_counting.make, -1),
        3,
        "counting on a light ground, which is never taught",
    ),
    _beside(
        "birds",
        "ood",
        "id",
        "birds_by_day",
        "letter",
        partial(by_day, birds.make, EYE),
        2,
        "kinds of birds on a light ground, which is never taught",
    ),
)
