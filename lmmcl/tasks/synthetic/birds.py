"""Birds: a fine-grained kind is recognised by the colours of body, wing, crest and beak; the answer is the letter of an option.

The counterpart of CUB200 with 26 lettered options, shuffled. Here the options are all twelve kinds, always in the same
order: with shuffled options the tiny model stayed at chance (12 % of eight after 1,500 examples and two epochs; 37 % of
two to four after 250 pre-training updates with four such questions a picture), because it never learnt to look a name up.

Example row: "<image> What kind of bird is this? A. crow B. dove C. duck … L. wren" → "K"
"""

from __future__ import annotations

from functools import partial

import numpy as np

from lmmcl.tasks.examples import Example, ask
from lmmcl.tasks.skills import Benchmark, Skill
from lmmcl.tasks.synthetic import draw
from lmmcl.tasks.synthetic.draw import Box, Scene, Side, article, pick

QUESTION = "What kind of bird is this?"

BODIES = ("red", "blue", "yellow", "white")
WINGS = ("green", "orange", "pink")
CRESTS = ("red", "yellow", "blue")
BEAKS = ("orange", "white")
NAMES = ("crow", "dove", "duck", "eagle", "finch", "gull", "hawk", "heron", "jay", "owl", "robin", "wren")


def _kinds() -> dict[str, tuple[str, str, str, str]]:
    """(body, wing, crest, beak) of each kind; the three kinds that share a body differ in two parts or more."""
    looks: dict[str, tuple[str, str, str, str]] = {}
    for at, name in enumerate(NAMES):
        variant, body = divmod(at, len(BODIES))
        crests = [crest for crest in CRESTS if crest != BODIES[body]]
        looks[name] = (BODIES[body], WINGS[(body + variant) % 3], crests[variant % 2], BEAKS[variant // 2])
    return looks


KINDS = _kinds()


def bird(rng: np.random.Generator, look: tuple[str, str, str, str]) -> Scene:
    """A bird of a look: (body, wing, crest, beak) colours, facing left or right, anywhere near the middle."""
    pixels = draw.canvas(pick(rng, ((20, 30, 42), (28, 40, 30), (44, 42, 40))))
    shift = (int(rng.integers(-1, 2)), int(rng.integers(-1, 2)))
    body, wing, crest, beak = look
    parts: tuple[tuple[str, str, int, int, np.ndarray], ...] = (
        ("body", body, 6, 12, draw.ellipse(18, 13)),
        ("body", body, 17, 7, draw.ellipse(9, 9)),
        ("body", body, 3, 15, np.ones((4, 6), bool)),
        ("wing", wing, 8, 14, draw.ellipse(11, 8)),
        ("crest", crest, 18, 4, draw.shape_mask("triangle", 6)),
        ("beak", beak, 25, 10, np.ones((3, 4), bool)),
    )
    tags: list[tuple[Box, tuple[str, ...]]] = []
    flip = bool(rng.integers(2))
    for part, colour, left, top, mask in parts:
        high, wide = mask.shape
        x = (draw.SIZE - left - wide if flip else left) + shift[0]
        draw.paint(pixels, mask, x, top + shift[1], draw.COLOURS[colour])
        tags.append(((x, top + shift[1], x + wide, top + shift[1] + high), ("bird", part, colour)))
    eye = (9 if flip else 21) + shift[0]
    pixels[10 + shift[1] : 12 + shift[1], eye : eye + 2] = (10, 10, 10)
    caption = f"{article(body)} bird with {article(wing)} wing and {article(crest)} crest and {article(beak)} beak"
    return Scene(draw.finish(pixels, rng), tuple(tags), (), caption)


def picture(rng: np.random.Generator) -> Scene:
    """A bird of any look, with tags and caption but no kind: the style without the skill."""
    return bird(rng, (pick(rng, BODIES), pick(rng, WINGS), pick(rng, CRESTS), pick(rng, BEAKS)))


def make(rng: np.random.Generator, identifier: str, side: Side) -> Example:
    """A question about one bird."""
    kind = pick(rng, NAMES)
    lines, letter = draw.lettered(kind, NAMES)
    image = bird(rng, KINDS[kind]).image
    return ask(identifier, f"{QUESTION}\n{lines}", letter, image, metadata={"kind": kind})


BENCHMARK = Benchmark(
    name="birds",
    version=1,
    metric="letter",
    load=partial(draw.examples, "birds", "test", 300, make),
    random_order=True,
    max_new_tokens=2,
    description="which of twelve lettered kinds a bird is",
)
SKILLS: tuple[Skill, ...] = (
    Skill(
        name="birds",
        version=1,
        load=partial(draw.examples, "birds", "train", 4000, make),
        random_order=True,
        benchmark=BENCHMARK,
        description="fine-grained kinds of birds, a lettered option as answer",
    ),
)
