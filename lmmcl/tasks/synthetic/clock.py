"""Clock: the time on a dial, HH:MM with hours 01 to 12 and minutes in steps of five.

The counterpart of TimeClock. Five minutes are the step because the end of the minute hand then moves by six pixels;
single minutes would differ by one pixel. The hour hand stands at its hour for the whole hour, for the same reason.

Example row: "<image> What time does the clock show?" → "12:45"
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from lmmcl.tasks.examples import Example, ask
from lmmcl.tasks.skills import Benchmark, Skill
from lmmcl.tasks.synthetic import draw
from lmmcl.tasks.synthetic.draw import Box, Scene, Side, pick

QUESTION = "What time does the clock show?"
STEP = 5
_QUARTER = (0, 131, 259, 383, 500, 609, 707, 793, 866, 924, 966, 991, 1000)
"""1000 · sin in steps of 7.5°: directions are exact integers, so that the pixels are the same on every machine."""


def _direction(step: int) -> tuple[int, int]:
    """(right, up) times 1000 for a hand at `step` of 48 steps around the dial, clockwise from the top."""
    quarter, rest = divmod(step % 48, 12)
    near, far = _QUARTER[rest], _QUARTER[12 - rest]
    return ((near, far), (far, -near), (-near, -far), (-far, near))[quarter]


def _hand(
    pixels: NDArray[np.uint8], middle: tuple[int, int], step: int, long: int, thick: int, colour: tuple[int, int, int]
) -> tuple[Box, tuple[str, ...]]:
    """Draws a hand; says where its outer half lies and towards which side it points."""
    right, up = _direction(step)
    for tenth in range(long * 2 + 1):
        x = middle[0] * 1000 + right * tenth // 2
        y = middle[1] * 1000 - up * tenth // 2
        left, top = (x - 500 * (thick - 1) + 500) // 1000, (y - 500 * (thick - 1) + 500) // 1000
        pixels[top : top + thick, left : left + thick] = colour
    ends = [(middle[0] + right * part // 1000, middle[1] - up * part // 1000) for part in (long // 2, long)]
    box = (min(x for x, _ in ends), min(y for _, y in ends), max(x for x, _ in ends) + 2, max(y for _, y in ends) + 2)
    return box, ("long" if long > 8 else "short", "hand", *_pointing(right, up))


def _pointing(right: int, up: int) -> tuple[str, ...]:
    """Words for one of twelve directions: the sides, and between two sides whether it points high or flat."""
    sides = (("top",) * (up > 0), ("bottom",) * (up < 0), ("left",) * (right < 0), ("right",) * (right > 0))
    slope = () if 0 in (right, up) else ("high",) if abs(up) > abs(right) else ("flat",)
    return (*(word for side in sides for word in side), *slope)


def dial(rng: np.random.Generator, hour: int, minute: int) -> Scene:
    """A dial at a time: a short thick hour hand that stands at the hour, and a long minute hand."""
    pixels = draw.canvas(pick(rng, ((20, 30, 42), (40, 40, 46), (52, 36, 30))))
    middle = (16 + int(rng.integers(-1, 2)), 16 + int(rng.integers(-1, 2)))
    face = pick(rng, ((236, 232, 220), (214, 226, 236), (226, 236, 214)))
    draw.paint(pixels, draw.ellipse(29, 29), middle[0] - 14, middle[1] - 14, (120, 120, 120))
    draw.paint(pixels, draw.ellipse(27, 27), middle[0] - 13, middle[1] - 13, face)
    for mark in range(0, 48, 4):
        right, up = _direction(mark)
        x, y = (middle[0] * 1000 + right * 12 + 500) // 1000, (middle[1] * 1000 - up * 12 + 500) // 1000
        pixels[y, x] = (90, 90, 90)
    red, dark = pick(rng, ((200, 40, 40), (180, 60, 20))), pick(rng, ((20, 20, 30), (30, 30, 90)))
    tags: list[tuple[Box, tuple[str, ...]]] = [
        ((middle[0] - 14, middle[1] - 14, middle[0] + 15, middle[1] + 15), ("clock",))
    ]
    tags.append(_hand(pixels, middle, minute * 48 // 60, 11, 1, red))
    tags.append(_hand(pixels, middle, hour % 12 * 4, 6, 2, dark))
    caption = "a clock with " + " and ".join(f"a {' '.join(words)}" for _, words in tags[1:])
    return Scene(draw.finish(pixels, rng), tuple(tags), (), caption)


def picture(rng: np.random.Generator) -> Scene:
    """A dial with tags and caption but no time: the style without the skill."""
    return dial(rng, int(rng.integers(1, 13)), STEP * int(rng.integers(60 // STEP)))


def make(rng: np.random.Generator, identifier: str, side: Side) -> Example:
    """A question about one dial."""
    hour, minute = int(rng.integers(1, 13)), STEP * int(rng.integers(60 // STEP))
    return ask(identifier, QUESTION, f"{hour:02d}:{minute:02d}", dial(rng, hour, minute).image)


BENCHMARK = Benchmark(
    name="clock",
    version=1,
    metric="clock",
    load=partial(draw.examples, "clock", "test", 300, make),
    random_order=True,
    max_new_tokens=6,
    description="the time on a dial, in steps of five minutes",
)
SKILLS: tuple[Skill, ...] = (
    Skill(
        name="clock",
        version=1,
        load=partial(draw.examples, "clock", "train", 4000, make),
        random_order=True,
        benchmark=BENCHMARK,
        description="reading clocks as HH:MM",
    ),
)
