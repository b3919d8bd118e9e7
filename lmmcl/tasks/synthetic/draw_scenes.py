"""Scenes of shapes, bar charts and characters: what the tiny model is pre-trained on and what the held-out benchmarks ask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmmcl.tasks.synthetic import draw
from lmmcl.tasks.synthetic.draw import Box, Scene, article, pick, sample
from lmmcl.tasks.synthetic.draw_font import CHARACTERS, glyph

PLACES = ("top left", "top right", "bottom left", "bottom right")
SIZES = {"small": 7, "big": 15}
"""Pixels across. A thing lies within one patch or exactly four, give or take a pixel, so that a small tower can see it."""


@dataclass(frozen=True)
class _Thing:
    shape: str
    colour: str
    size: str
    pattern: str
    place: str
    box: Box

    @property
    def words(self) -> tuple[str, ...]:
        return (self.size, self.colour, self.pattern, self.shape, *self.place.split())


def scene(rng: np.random.Generator) -> Scene:
    """One to three things, each in a quarter of its own, no two of one shape or one colour."""
    pixels = draw.canvas(pick(rng, ((18, 18, 22), (40, 40, 46), (64, 62, 60))))
    count = int(rng.integers(1, 4))
    shapes, colours = sample(rng, draw.SHAPES, count), sample(rng, list(draw.COLOURS), count)
    places = sample(rng, PLACES, count)
    things = [_put(pixels, rng, *traits) for traits in zip(shapes, colours, places, strict=True)]
    return Scene(
        image=draw.finish(pixels, rng),
        tags=tuple((thing.box, thing.words) for thing in things),
        asked=tuple(question for thing in things for question in _about(thing)) + _presence(rng, things),
        caption=" and ".join(f"a {t.size} {t.colour} {t.pattern} {t.shape} {t.place}" for t in things),
    )


def _put(pixels: draw.Pixels, rng: np.random.Generator, shape: str, colour: str, place: str) -> _Thing:
    size = pick(rng, tuple(SIZES))
    pattern = pick(rng, draw.PATTERNS) if size == "big" else "plain"  # on a few pixels nobody can tell a pattern
    edge = SIZES[size]
    inside = 8 if size == "small" else 0
    left = int(rng.integers(2)) + inside * int(rng.integers(2)) + 16 * place.endswith("right")
    top = int(rng.integers(2)) + inside * int(rng.integers(2)) + 16 * place.startswith("bottom")
    mask, rgb = draw.shape_mask(shape, edge), draw.COLOURS[colour]
    draw.paint(pixels, mask, left, top, draw.darker(rgb))
    draw.paint(pixels, mask & draw.pattern_mask(pattern, edge), left, top, rgb)
    return _Thing(shape, colour, size, pattern, place, (left, top, left + edge, top + edge))


def _about(thing: _Thing) -> tuple[tuple[str, str, str], ...]:
    asked: tuple[tuple[str, str, str], ...] = (
        ("colour", f"What colour is the {thing.shape}?", thing.colour),
        ("shape", f"What shape is the {thing.colour} thing?", thing.shape),
        ("size", f"Is the {thing.shape} big or small?", thing.size),
        ("position", f"Where is the {thing.shape}?", thing.place),
    )
    if thing.size == "big":
        asked += (("pattern", f"What pattern does the {thing.shape} have?", thing.pattern),)
    return asked


def _presence(rng: np.random.Generator, things: list[_Thing]) -> tuple[tuple[str, str, str], ...]:
    """One question with yes and one with no; half of the noes name a shape that is there in another colour."""
    there, other = pick(rng, things), pick(rng, things)
    absent = [shape for shape in draw.SHAPES if all(shape != thing.shape for thing in things)]
    colours = [colour for colour in draw.COLOURS if colour != other.colour]
    shape = other.shape if rng.integers(2) else pick(rng, absent)
    wrong = (pick(rng, colours), shape)
    return (
        ("presence", f"Is there {article(there.colour)} {there.shape}?", "yes"),
        ("presence", f"Is there {article(wrong[0])} {wrong[1]}?", "no"),
    )


def chart(rng: np.random.Generator) -> Scene:
    """Three or four bars of different colours on an axis; the highest stands out by three pixels or more."""
    pixels = draw.canvas(pick(rng, ((18, 18, 22), (40, 40, 46))))
    count = int(rng.integers(3, 5))
    wide = 24 // count
    highest = int(rng.integers(14, 27))
    heights = [highest, *(int(rng.integers(3, highest - 2)) for _ in range(count - 1))]
    order = rng.permutation(count)
    colours = sample(rng, list(draw.COLOURS), count)
    tags: list[tuple[Box, tuple[str, ...]]] = []
    left = 2
    for at, colour in zip(order, colours, strict=True):
        box = (left, 29 - heights[at], left + wide, 29)
        pixels[box[1] : box[3], box[0] : box[2]] = draw.COLOURS[colour]
        tags.append((box, (colour, "bar", *(("highest",) if at == 0 else ()))))
        left += wide + 1
    pixels[29, 1:31] = (150, 150, 150)
    winner = colours[int(np.flatnonzero(order == 0)[0])]
    return Scene(
        image=draw.finish(pixels, rng),
        tags=tuple(tags),
        asked=(("chart", "Which bar is the highest?", winner),),
        caption=f"bars {' '.join(colours)} the {winner} bar is the highest",
    )


def character(rng: np.random.Generator) -> Scene:
    """One capital letter or digit, in one of the colours."""
    pixels = draw.canvas(pick(rng, ((18, 18, 22), (40, 40, 46))))
    letter, colour = pick(rng, CHARACTERS), pick(rng, tuple(draw.COLOURS))
    left, top = 6 + int(rng.integers(2)), 2 + int(rng.integers(2))
    draw.paint(pixels, glyph(letter, 4), left, top, draw.COLOURS[colour])
    return Scene(
        image=draw.finish(pixels, rng),
        tags=(((left, top, left + 20, top + 28), (letter, colour)),),
        asked=(("characters", "Which letter or digit is shown?", letter),),
        caption=f"{article(colour)} {letter}",
    )
