"""General: what the embedded model was pre-trained on, as questions: all kinds of scenes, all kinds of questions about them.

It plays the part that LLaVA-665K has for real models: diverse data to mix into a stage (`data_hybrid`), or to measure what is
important (`ewc`). Its training pictures lie on the training side (see `draw.side_of`), so that none is a picture that a
held-out benchmark asks about.

Example row: "<image> What colour is the ring?" → "green"
"""

from __future__ import annotations

from functools import partial

import numpy as np

from lmmcl.tasks.examples import Example, ask
from lmmcl.tasks.skills import Benchmark, Skill
from lmmcl.tasks.synthetic import draw, draw_streams
from lmmcl.tasks.synthetic.draw import Side, pick


def make(rng: np.random.Generator, identifier: str, side: Side) -> Example:
    """One question, with or without lettered options, about a picture of a kind drawn by its share in pre-training."""
    pictures, shares = zip(*draw_streams.ASKED, strict=True)
    while True:
        picture = pictures[rng.choice(len(pictures), p=shares)]
        scene = draw_streams.with_options(rng, picture(rng))
        if scene.asked:
            kind, question, answer = pick(rng, scene.asked)
            return ask(identifier, question, answer, scene.image, metadata={"kind": kind})


BENCHMARK = Benchmark(
    name="general",
    version=1,
    metric="exact_match",
    load=partial(draw.examples, "general", "test", 300, make),
    random_order=True,
    max_new_tokens=4,
    description="questions of all kinds that the embedded model was pre-trained on",
)
SKILLS: tuple[Skill, ...] = (
    Skill(
        name="general",
        version=1,
        load=partial(draw.examples, "general", "train", 6000, make),
        random_order=True,
        benchmark=BENCHMARK,
        description="what the embedded model was pre-trained on, to be mixed into a stage",
    ),
)
