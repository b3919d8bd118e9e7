"""Digits: a number of two handwritten digits side by side, real handwriting from scikit-learn's `load_digits`.

The counterpart of TextVQA, with one reference answer. The handwriting itself is split: the first 1,257 of the 1,797
digits are for training, the others (other writers) for testing.

Example row: "<image> What number is written?" → "33"
"""

from __future__ import annotations

from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from lmmcl.tasks.examples import Example, ask
from lmmcl.tasks.skills import Benchmark, Skill
from lmmcl.tasks.synthetic import draw
from lmmcl.tasks.synthetic.draw import Box, Scene, Side, pick

QUESTION = "What number is written?"
TRAIN = 1257
INKS = ("white", "yellow", "pink")


@cache
def handwriting() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """(images of 8 × 8 pixels with ink from 0 to 16, the digits they show), as scikit-learn ships them."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    return loaded.images.astype(np.uint8), loaded.target.astype(np.int64)


def written(rng: np.random.Generator, side: Side) -> tuple[Scene, str, tuple[int, int]]:
    """(picture, the number as text, which two of the handwritten digits it is made of)."""
    images, digits = handwriting()
    low, high = (0, TRAIN) if side == "train" else (TRAIN, len(digits))
    chosen = (int(rng.integers(low, high)), int(rng.integers(low, high)))
    pixels = draw.canvas(pick(rng, ((18, 18, 22), (40, 40, 46), (20, 30, 42))))
    ink = np.array(draw.COLOURS[pick(rng, INKS)], np.int64)
    tags: list[tuple[Box, tuple[str, ...]]] = []
    for place, index in enumerate(chosen):
        left, top = 16 * place, 8 + int(rng.integers(-1, 2))
        share = images[index].repeat(2, axis=0).repeat(2, axis=1)[..., None].astype(np.int64)
        under = pixels[top : top + 16, left : left + 16]
        under[:] = (under * (16 - share) + ink * share) // 16
        tags.append(((left, top, left + 16, top + 16), ("handwriting", str(digits[index]))))
    text = "".join(str(digits[index]) for index in chosen)
    return Scene(draw.finish(pixels, rng), tuple(tags), (), f"handwriting {text}"), text, chosen


def picture(rng: np.random.Generator) -> Scene:
    """Handwriting of the training side with tags and a caption that reads it, but no question: real models can read."""
    return written(rng, "train")[0]


def make(rng: np.random.Generator, identifier: str, side: Side) -> Example:
    """A question about one number."""
    scene, text, chosen = written(rng, side)
    return ask(identifier, QUESTION, text, scene.image, metadata={"handwriting": chosen})


BENCHMARK = Benchmark(
    name="digits",
    version=1,
    metric="exact_match",
    load=partial(draw.examples, "digits", "test", 300, make),
    random_order=True,
    max_new_tokens=3,
    description="a handwritten number of two digits",
)
SKILLS: tuple[Skill, ...] = (
    Skill(
        name="digits",
        version=1,
        load=partial(draw.examples, "digits", "train", 4000, make),
        random_order=True,
        benchmark=BENCHMARK,
        description="reading two handwritten digits",
    ),
)
