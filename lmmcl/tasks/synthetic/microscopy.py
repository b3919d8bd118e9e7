"""Microscopy: what tissue a section shows, whether its nuclei are enlarged, whether a dark body is present.

The counterpart of PathVQA: half of the answers are short ones, half are yes or no.

Example row: "<image> What tissue is this?" → "stromal"
"""

from __future__ import annotations

from functools import partial

import numpy as np

from lmmcl.tasks.examples import Example, ask
from lmmcl.tasks.skills import Benchmark, Skill
from lmmcl.tasks.synthetic import draw
from lmmcl.tasks.synthetic.draw import Box, Scene, Side, pick

TISSUES = ("squamous", "columnar", "glandular", "stromal")
_CELLS = {"squamous": (14, 7), "columnar": (6, 14), "glandular": (9, 9)}
_RING = ((12, 1), (20, 4), (23, 12), (20, 20), (12, 23), (4, 20), (1, 12), (4, 4))
"""Upper left corners of the cells of a gland, around its empty middle."""


def section(rng: np.random.Generator, tissue: str, enlarged: bool, body: bool) -> Scene:
    """A stained section of a tissue, with large or small nuclei, with or without a dark body."""
    ground = pick(rng, ((236, 190, 206), (226, 196, 226), (240, 206, 196)))
    cell, nucleus = (ground[0] - 36, ground[1] - 70, ground[2] - 40), (110, 50, 140)
    pixels = draw.canvas(ground)
    if tissue == "stromal":
        _fibres(pixels, rng, cell)
    centres = [(x + int(rng.integers(-1, 2)), y + int(rng.integers(-1, 2))) for x, y in _centres(tissue)]
    edge = 6 if enlarged else 3
    for x, y in centres:
        if tissue in _CELLS:
            wide, high = _CELLS[tissue]
            draw.paint(pixels, draw.ellipse(wide, high), x - wide // 2, y - high // 2, cell)
        draw.paint(pixels, draw.ellipse(edge, edge), x - edge // 2, y - edge // 2, nucleus)
    tags: list[tuple[Box, tuple[str, ...]]] = [
        ((x - 4, y - 4, x + 4, y + 4), ("cell", "large" if enlarged else "small", "nucleus")) for x, y in centres
    ]
    if body:
        left, top = int(rng.integers(1, 27)), int(rng.integers(1, 27))
        pixels[top : top + 4, left : left + 4] = (15, 15, 15)
        tags.append(((left, top, left + 4, top + 4), ("dark", "body")))
    tags.append(((0, 0, draw.SIZE, draw.SIZE), ("tissue",)))
    caption = f"cells with {'large' if enlarged else 'small'} nuclei" + (" and a dark body" if body else "")
    return Scene(draw.finish(pixels, rng), tuple(tags), (), caption)


def _centres(tissue: str) -> list[tuple[int, int]]:
    if tissue == "glandular":
        return [(x + 4, y + 4) for x, y in _RING]
    if tissue == "squamous":
        return [(x + 8 * (row % 2), y) for row, y in enumerate((4, 12, 20, 28)) for x in (0, 16, 32)]
    if tissue == "columnar":
        return [(x, y) for x in (4, 12, 20, 28) for y in (8, 24)]
    return [(7, 7), (24, 11), (10, 23), (26, 26)]


def _fibres(pixels: draw.Pixels, rng: np.random.Generator, colour: tuple[int, int, int]) -> None:
    """Slanting bands, as connective tissue has them."""
    y, x = np.ogrid[: draw.SIZE, : draw.SIZE]
    pixels[(x + 2 * y + int(rng.integers(10))) % 10 < 4] = colour


def picture(rng: np.random.Generator) -> Scene:
    """A section with tags and caption but without the tissue's name: the style without the skill."""
    return section(rng, pick(rng, TISSUES), bool(rng.integers(2)), bool(rng.integers(2)))


def make(rng: np.random.Generator, identifier: str, side: Side) -> Example:
    """A question about one section: half of them for the tissue, a quarter each for nuclei and dark body."""
    tissue, enlarged, body = pick(rng, TISSUES), bool(rng.integers(2)), bool(rng.integers(2))
    image = section(rng, tissue, enlarged, body).image
    tell = {True: "yes", False: "no"}
    question, answer = (
        ("What tissue is this?", tissue),
        ("What tissue is this?", tissue),
        ("Are the nuclei enlarged?", tell[enlarged]),
        ("Is a dark body present?", tell[body]),
    )[int(rng.integers(4))]
    facts = {"tissue": tissue, "enlarged": enlarged, "body": body}
    return ask(identifier, question, answer, image, metadata=facts)


BENCHMARK = Benchmark(
    name="microscopy",
    version=1,
    metric="exact_match",
    load=partial(draw.examples, "microscopy", "test", 300, make),
    random_order=True,
    max_new_tokens=3,
    description="tissue, nuclei and dark bodies of a section",
)
SKILLS: tuple[Skill, ...] = (
    Skill(
        name="microscopy",
        version=1,
        load=partial(draw.examples, "microscopy", "train", 4000, make),
        random_order=True,
        benchmark=BENCHMARK,
        description="short answers and yes or no about stained sections",
    ),
)
