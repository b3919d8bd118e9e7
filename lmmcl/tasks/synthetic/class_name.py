"""Task-specific overfitting (arXiv 2603.14493): lettered questions in which a wrong option is the class that a skill teaches.

A model that has learnt "this picture → robin" too well picks `robin` whatever is asked. `with_class_name` turns any
lettered question into such a trap; BIRD_PARTS are ready ones for the skill `birds`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from lmmcl.errors import UserError
from lmmcl.tasks.examples import Example, ask
from lmmcl.tasks.metrics.parse_answer import stated_letter
from lmmcl.tasks.skills import Benchmark
from lmmcl.tasks.synthetic import birds, draw
from lmmcl.tasks.synthetic.draw import Side, pick, sample

_OPTION = re.compile(r"^\s*\(?([A-Z])[.):]\s*(\S.*?)\s*$", re.MULTILINE)
TRAP = "trap"
"""Where an example's metadata holds the letter of the option that is the class name."""


def options(example: Example) -> dict[str, str]:
    """The lettered options of the last turn before the answer, by letter ("A. red", "(B) blue"); empty without any."""
    return dict(_OPTION.findall(example.prompt[-1].content))


def with_class_name(
    example: Example, class_name: str, rng: np.random.Generator | None = None, *, letter: str | None = None
) -> Example:
    """The example with one of its wrong options, at `letter` or drawn by `rng`, replaced by `class_name`.

    `metadata["trap"]` is the letter of that option. Raises UserError for an example without a right and a wrong option
    in letters, where `letter` is not a wrong option, and where the class name is an option already.
    """
    shown, right = options(example), stated_letter(example.target)
    wrong = [name for name in shown if name != right]
    place = f"example {example.id}"
    if right not in shown or not wrong:
        raise UserError("has no lettered options with a right and a wrong one", place=place)
    if letter is not None and letter not in wrong:
        raise UserError(f"{letter!r} is not a wrong option; allowed: {', '.join(wrong)}", place=place)
    if class_name in shown.values():
        raise UserError(f"{class_name!r} is one of its options already", place=place)
    trap = letter or pick(rng or np.random.default_rng(0), wrong)
    last = example.prompt[-1]

    def swap(match: re.Match[str]) -> str:
        if match[1] != trap:
            return match[0]
        start, end = match.start(2) - match.start(), match.end(2) - match.start()
        return match[0][:start] + class_name + match[0][end:]

    asked = replace(last, content=_OPTION.sub(swap, last.content))
    metadata: Mapping[str, Any] = {**example.metadata, TRAP: trap}
    return replace(example, messages=(*example.messages[:-2], asked, example.messages[-1]), metadata=metadata)


_PARTS = ("body", "wing", "crest", "beak")
_POOL = (*draw.COLOURS, *draw.PATTERNS)  # as many options as the skill has kinds
_USUAL = dict(zip(birds.NAMES, draw.LETTERS, strict=False))


def _bird_part(named: bool, rng: np.random.Generator, identifier: str, side: Side) -> Example:
    """The colour of a part of a bird, with a kind among the options: that of the bird, or (`named` false) another.

    A kind stands at the letter that it has in the skill, where the tiny model has learnt to expect it.
    """
    while True:
        kind, other = sample(rng, birds.NAMES, 2)
        at = int(rng.integers(len(_PARTS)))
        lines, letter = draw.lettered(birds.KINDS[kind][at], _POOL)
        if letter not in (_USUAL[kind], _USUAL[other]):
            break
    image = birds.bird(rng, birds.KINDS[kind]).image
    asked = f"What colour is the {_PARTS[at]}?\n{lines}"
    shown = kind if named else other
    question = ask(identifier, asked, letter, image, metadata={"kind": kind})
    return with_class_name(question, shown, letter=_USUAL[shown])


def _bird_parts(name: str, named: bool, description: str) -> Benchmark:
    # One seed for both: they are the same questions about the same pictures.
    load = partial(draw.examples, "bird_parts", "test", 400, partial(_bird_part, named))
    return Benchmark(name, 1, "letter", load, max_new_tokens=1, description=description, random_order=True)


BIRD_PARTS = _bird_parts("bird_parts", True, "the colour of a bird's part; one wrong option is its kind")
BIRD_PARTS_CONTROL = _bird_parts("bird_parts_control", False, "the same questions; one wrong option is another kind")
