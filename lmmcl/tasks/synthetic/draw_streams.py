"""Endless pictures to pre-train the tiny model on: the held-out kinds, and the skills' styles without their questions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from lmmcl.tasks.synthetic import birds, clock, digits, draw, draw_scenes, drawn_counting, microscopy
from lmmcl.tasks.synthetic.draw import Scene, pick, sample

Picture = Callable[[np.random.Generator], Scene]

ASKED: tuple[tuple[Picture, float], ...] = (
    (draw_scenes.scene, 0.64),
    (draw_scenes.chart, 0.12),
    (draw_scenes.character, 0.24),
)
"""Pictures that questions are asked about, with their shares."""

STYLES: tuple[Picture, ...] = (birds.picture, drawn_counting.picture, microscopy.picture, digits.picture, clock.picture)
"""Pictures in the styles of the target skills: tags and captions, no questions."""

POOLS: dict[str, tuple[str, ...]] = {
    "colour": tuple(draw.COLOURS),
    "chart": tuple(draw.COLOURS),
    "shape": draw.SHAPES,
    "pattern": draw.PATTERNS,
    "position": draw_scenes.PLACES,
}
"""The answers that a benchmark's questions have, for options in letters."""


def with_options(rng: np.random.Generator, scene: Scene) -> Scene:
    """Six of the scene's questions, one of them once more with lettered options (kind `options`)."""
    asked = sample(rng, scene.asked, 6)
    fitting = [candidate for candidate in asked if candidate[0] in POOLS]
    if fitting:
        benchmark, question, answer = pick(rng, fitting)
        lines, letter = draw.lettered(answer, POOLS[benchmark])
        asked.append(("options", f"{question}\n{lines}", letter))
    return replace(scene, asked=tuple(asked))


def pretraining(seed: int, style_share: float = 0.25) -> Iterator[Scene]:
    """Scenes without end, all of the training side: never a picture of a held-out benchmark.

    `style_share` of them are of STYLES, the others of ASKED; each has at most seven questions.
    """
    index = 0
    while True:
        rng = np.random.default_rng([seed, index])
        if rng.random() < style_share:
            yield draw.drawn(pick(rng, STYLES), [seed, index, 1])
        else:
            yield with_options(rng, draw.drawn(_by_share(rng), [seed, index, 1]))
        index += 1


def _by_share(rng: np.random.Generator) -> Picture:
    point = rng.random()
    for picture, share in ASKED:
        if point < share:
            return picture
        point -= share
    return ASKED[-1][0]
