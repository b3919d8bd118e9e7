"""The held-out benchmarks: what the tiny model can do before it is taught anything, asked again after every stage.

Example row: "<image> Which bar is the highest?" → "orange"
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from lmmcl.tasks.examples import Example, ask
from lmmcl.tasks.skills import Benchmark
from lmmcl.tasks.synthetic import draw, draw_scenes
from lmmcl.tasks.synthetic.draw import Scene, Side, pick

QUESTIONS = 200


def make(
    benchmark: str,
    picture: Callable[[np.random.Generator], Scene],
    rng: np.random.Generator,
    identifier: str,
    side: Side,
) -> Example:
    """One question of a benchmark about the first picture for which it has one."""
    while True:
        scene = picture(rng)
        fitting = [candidate for candidate in scene.questions() if candidate[0] == benchmark]
        if fitting:
            _, question, answer = pick(rng, fitting)
            return ask(identifier, question, answer, scene.image)


def _benchmark(
    name: str, picture: Callable[[np.random.Generator], Scene], description: str, metric: str = "exact_match"
) -> Benchmark:
    maker = partial(make, name, picture)
    return Benchmark(
        name=name,
        version=1,
        metric=metric,
        load=partial(draw.examples, name, "test", QUESTIONS, maker),
        random_order=True,
        max_new_tokens=4,
        description=description,
        tags={"image": "ood", "text": "ood", "general": {"image": "id", "text": "id"}},
    )


BENCHMARKS: tuple[Benchmark, ...] = (
    _benchmark("colour", draw_scenes.scene, "the colour of a thing named by its shape"),
    _benchmark("shape", draw_scenes.scene, "the shape of a thing named by its colour"),
    _benchmark("size", draw_scenes.scene, "whether a thing is big or small"),
    _benchmark("pattern", draw_scenes.scene, "plain, striped, dotted or checked"),
    _benchmark("presence", draw_scenes.scene, "whether a thing of a colour and a shape is there", metric="yes_no"),
    _benchmark("position", draw_scenes.scene, "the quarter of the picture that a thing lies in"),
    _benchmark("chart", draw_scenes.chart, "the colour of the highest bar"),
    _benchmark("characters", draw_scenes.character, "reading a letter or digit"),
)
