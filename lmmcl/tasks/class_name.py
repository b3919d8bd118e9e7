"""Task-specific overfitting (arXiv 2603.14493): lettered questions in which a wrong option is the class that a skill teaches.

A model that has learnt "this picture → robin" too well picks `robin` whatever is asked. `with_class_name` turns any
lettered question into such a trap; BIRD_PARTS are ready ones for the skill `birds`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from lmmcl.errors import UserError
from lmmcl.tasks import birds, draw
from lmmcl.tasks.base import Benchmark, Example, ask
from lmmcl.tasks.draw import Side, pick
from lmmcl.tasks.metric_text import stated_letter

_OPTION = re.compile(r"^\s*\(?([A-Z])[.):]\s*(\S.*?)\s*$", re.MULTILINE)
TRAP = "trap"
"""Where an example's metadata holds the letter of the option that is the class name."""


def options(example: Example) -> dict[str, str]:
    """The lettered options of the last turn before the answer, by letter ("A. red", "(B) blue"); empty without any."""
    return dict(_OPTION.findall(example.prompt[-1].content))


def with_class_name(example: Example, class_name: str, rng: np.random.Generator) -> Example:
    """The example with one of its wrong options, drawn by `rng`, replaced by `class_name`.

    `metadata["trap"]` is the letter of that option. Raises UserError for an example without a right and a wrong option
    in letters, and where the class name is an option already.
    """
    shown, right = options(example), stated_letter(example.target)
    wrong = [letter for letter in shown if letter != right]
    if right not in shown or not wrong:
        raise UserError("has no lettered options with a right and a wrong one", place=f"example {example.id}")
    if class_name in shown.values():
        raise UserError(f"{class_name!r} is one of its options already", place=f"example {example.id}")
    trap = pick(rng, wrong)
    last = example.prompt[-1]

    def swap(match: re.Match[str]) -> str:
        return match[0].replace(match[2], class_name) if match[1] == trap else match[0]

    asked = replace(last, content=_OPTION.sub(swap, last.content))
    metadata: Mapping[str, Any] = {**example.metadata, TRAP: trap}
    return replace(example, messages=(*example.messages[:-2], asked, example.messages[-1]), metadata=metadata)


def _bird_part(named: bool, rng: np.random.Generator, identifier: str, side: Side) -> Example:
    """The colour of a part of a bird, with a kind among the options: that of the bird, or (`named` false) another."""
    kind, part = pick(rng, birds.NAMES), pick(rng, _PARTS)
    look = dict(zip(_PARTS, birds.KINDS[kind], strict=True))
    lines, letter = draw.lettered(rng, look[part], tuple(draw.COLOURS), birds.OPTIONS)
    other = pick(rng, [name for name in birds.NAMES if name != kind])
    seed = int(rng.integers(2**31))
    image = birds.bird(rng, birds.KINDS[kind]).image
    question = ask(identifier, f"What colour is the {part}?\n{lines}", letter, image, metadata={"kind": kind})
    return with_class_name(question, kind if named else other, np.random.default_rng(seed))


_PARTS = ("body", "wing", "crest", "beak")


def _bird_parts(name: str, named: bool, description: str) -> Benchmark:
    # One name for both sets of examples: they are the same questions about the same pictures.
    maker: Callable[..., Example] = partial(_bird_part, named)
    load = partial(draw.examples, "bird_parts", "test", 400, maker)
    return Benchmark(name, 1, "letter", load, max_new_tokens=2, description=description)


BIRD_PARTS = _bird_parts("bird_parts", True, "the colour of a bird's part; one wrong option is its kind")
BIRD_PARTS_CONTROL = _bird_parts("bird_parts_control", False, "the same questions; one wrong option is another kind")
