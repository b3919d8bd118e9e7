"""Every token that the drawn skills and benchmarks use: what the tiny model's word-level tokenizer must hold."""

from __future__ import annotations

import re
from functools import cache

from lmmcl.tasks.synthetic import birds, clock, digits, draw, draw_scenes, drawn_counting, microscopy
from lmmcl.tasks.synthetic.draw_font import CHARACTERS

_TOKEN = re.compile(r"[A-Za-z]+|[0-9]|[^\sA-Za-z0-9]")

_ASKED = (
    "What colour is the thing?",
    "What shape is the thing?",
    "Is the big or small?",
    "Where is the?",
    "What pattern does the have?",
    "Is there a an?",
    "Which bar is the highest?",
    "Which letter or digit is shown?",
    "How many are in this image?",
    "What tissue is this?",
    "Are the nuclei enlarged?",
    "Is a dark body present?",
    "yes no :",
)
_SAID = (
    "a bird with a body wing and a crest and a beak",
    "bars bar the highest and",
    "small large nucleus nuclei cell cells tissue with and a dark body",
    "handwriting big clock with a long short hand high flat",
)


def tokens(text: str) -> list[str]:
    """The text's tokens: words, single digits, single marks; case counts, white space does not."""
    return _TOKEN.findall(text)


@cache
def vocabulary() -> tuple[str, ...]:
    """All tokens of prompts, answers, options, tags and captions, sorted."""
    things = (
        *(
            *draw.LETTERS,
            ".",
            "0123456789",
            *CHARACTERS,
            *draw.COLOURS,
            *draw.SHAPES,
            *draw.PATTERNS,
            *draw_scenes.PLACES,
        ),
        *(*draw_scenes.SIZES, *birds.NAMES, *drawn_counting.PLURALS.values(), *microscopy.TISSUES),
        *(birds.QUESTION, digits.QUESTION, clock.QUESTION, *_ASKED, *_SAID),
    )
    return tuple(sorted({token for text in things for token in tokens(text)}))
