"""Endless pictures to pre-train the tiny model on: the held-out kinds, and the skills' styles without their questions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from lmmcl.tasks import birds, clock, counting, digits, draw, draw_scenes, microscopy
from lmmcl.tasks.draw import Scene, pick, sample

Picture = Callable[[np.random.Generator], Scene]

ASKED: tuple[tuple[Picture, float], ...] = (
    (draw_scenes.scene, 0.64),
    (draw_scenes.chart, 0.12),
    (draw_scenes.character, 0.24),
)
"""Pictures that questions are asked about, with their shares."""

STYLES: tuple[Picture, ...] = (birds.picture, counting.picture, microscopy.picture, digits.picture, clock.picture)
"""Pictures in the styles of the target skills: tags and captions, no questions."""

POOLS: dict[str, tuple[str, ...]] = {
    "colour": tuple(draw.COLOURS),
    "chart": tuple(draw.COLOURS),
    "shape": draw.SHAPES,
    "pattern": draw.PATTERNS,
    "position": draw_scenes.PLACES,
}
"""The answers that a benchmark's questions have, for options in letters."""


OPTIONS = birds.OPTIONS
WORDS = (tuple(draw.COLOURS), draw.SHAPES, draw.PATTERNS, birds.NAMES)
"""Words to be found among options. Names of birds are among them, as words: no picture says what they look like."""


def with_options(rng: np.random.Generator, scene: Scene) -> Scene:
    """The scene with three of its questions, two more with lettered options, and two that name the option (kind `options`).

    What names the option needs no picture: it teaches to find a word among the options and to say its letter, which
    questions about pictures then need only half of.
    """
    fitting = [each for each in scene.asked if each[0] in POOLS]
    asked = sample(rng, scene.asked, 3)
    for benchmark, question, answer in sample(rng, fitting, 2):
        lines, letter = draw.lettered(rng, answer, POOLS[benchmark], int(rng.integers(2, OPTIONS + 1)))
        asked.append(("options", f"{question}\n{lines}", letter))
    for _ in range(2):
        pool = pick(rng, WORDS)
        word = pick(rng, pool)
        lines, letter = draw.lettered(rng, word, pool, int(rng.integers(2, OPTIONS + 1)))
        asked.append(("options", f"Which letter is {word}?\n{lines}", letter))
    return replace(scene, asked=tuple(asked))


def pretraining(seed: int, style_share: float = 0.25) -> Iterator[Scene]:
    """Scenes without end, all of the training side: never a picture of a held-out benchmark.

    `style_share` of them are of STYLES, the others of ASKED; each has at most seven questions.
    """
    index = 0
    while True:
        rng = np.random.default_rng([seed, index])
        if rng.random() < style_share:
            yield with_options(rng, draw.drawn(pick(rng, STYLES), [seed, index, 1]))
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
