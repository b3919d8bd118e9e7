"""Benchmarks evaluated on a checkpoint with experts: a router reads every question, and the expert that it names answers.

One model is in memory at a time: the router is asked all benchmarks, then each expert its questions of all of them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import ProcessorMixin

from lmmcl.evaluation.engines.transformers import Transformers
from lmmcl.evaluation.evaluate import record_texts
from lmmcl.evaluation.generate import said
from lmmcl.ledger import Ledger
from lmmcl.models.processing.resizing import image_backend
from lmmcl.steps import Checkpoint, Evaluate
from lmmcl.tasks.examples import Example
from lmmcl.tasks.routing import choice, expert_questions, routing_questions
from lmmcl.weights.expert_routing import Routing

Load = Callable[[Checkpoint], Any]
Tell = Callable[[int, Evaluate], None]
"""Called with the number of a benchmark, from 1, when it is asked."""


@dataclass
class _Asked:
    """A benchmark's questions: which expert each goes to, and what was said."""

    step: Evaluate
    started: float
    chosen: list[int]
    unreadable: int = 0
    answers: dict[int, tuple[Example, str]] = field(default_factory=dict)

    def rows(self, expert: int) -> list[int]:
        """The questions that `expert` answers."""
        return [row for row, number in enumerate(self.chosen) if number == expert]


def record_routed(
    steps: Sequence[Evaluate],
    ledger: Ledger,
    routing: Routing,
    load: Load,
    processor: ProcessorMixin,
    *,
    batch_size: int,
    tell: Tell,
) -> None:
    """Ask the benchmarks of `steps`, of one checkpoint, and commit their records.

    Besides what every record has, `routed` counts the questions that each expert answered, in the order of the skills, and how many
    answers of the router named none.
    """
    asked = _choose(steps, routing, load, processor, batch_size, tell)
    for number, expert in enumerate(routing.experts):
        mine = [(part, rows) for part in asked if (rows := part.rows(number))]
        if not mine:
            continue
        model = load(expert)
        for part, rows in mine:
            step = part.step
            questions = expert_questions(step.benchmark, step.evaluation.limit, rows)
            answers = said(model, processor, questions, limit=None, batch_size=batch_size)
            part.answers |= zip(rows, answers, strict=True)
    for part in asked:
        counts = Counter(part.chosen)
        record_texts(
            part.step,
            ledger,
            [part.answers[row] for row in range(len(part.chosen))],
            engine=Transformers.name,
            image_backend=image_backend(processor),
            started=part.started,
            more={
                "routed": {
                    "experts": [counts[number] for number in range(len(routing.experts))],
                    "unreadable": part.unreadable,
                }
            },
        )


def _choose(
    steps: Sequence[Evaluate], routing: Routing, load: Load, processor: ProcessorMixin, batch_size: int, tell: Tell
) -> list[_Asked]:
    """The expert of every question."""
    asked = []
    model = load(routing.router) if routing.router else None
    for number, step in enumerate(steps, start=1):
        tell(number, step)
        part, limit = _Asked(step, time.time(), []), step.evaluation.limit
        if model is None:
            part.chosen = [0] * len(step.benchmark.take(limit))
        else:
            questions = routing_questions(step.benchmark, limit, routing.pool)
            for example, text in said(model, processor, questions, limit=None, batch_size=batch_size):
                expert, named = choice(text, len(routing.experts), example.id)
                part.chosen.append(expert)
                part.unreadable += not named
        asked.append(part)
    return asked
