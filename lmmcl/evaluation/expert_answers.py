"""Benchmarks evaluated on a checkpoint with experts: a router reads every question, and the expert that it names answers.

One model is in memory at a time: the router is asked all benchmarks, then each expert its questions of all of them. A benchmark is
recorded when the last of its questions is answered; what is answered before is kept beside the store, as of any evaluation.
"""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedModel, ProcessorMixin

from lmmcl.evaluation.engines.transformers import Transformers
from lmmcl.evaluation.evaluate import Answers, OnAnswer, record_answers, reported
from lmmcl.evaluation.generate import known_answers, said
from lmmcl.evaluation.judging.local_judge import LocalJudges
from lmmcl.evaluation.partial_answers import PartialAnswers
from lmmcl.ledger import Ledger
from lmmcl.models.processing.resizing import image_backend
from lmmcl.steps import Checkpoint, Evaluate
from lmmcl.tasks.examples import Example
from lmmcl.tasks.routing import choice, routing_questions
from lmmcl.tasks.skills import Benchmark
from lmmcl.weights.expert_routing import Routing

Load = Callable[[Checkpoint], Any]
ProgressOf = Callable[[int, str], OnAnswer]
"""Called with the number of a benchmark, from 1, and what is done with it, when that begins."""
CHOOSING, ANSWERING = "choosing experts for", "evaluating"


@dataclass
class _Part:
    """A benchmark's questions: which expert each goes to, what was said, and how long that took."""

    number: int
    step: Evaluate
    chosen: list[int] = field(default_factory=list)
    unreadable: int = 0
    answers: dict[int, tuple[Example, str]] = field(default_factory=dict)
    started: float = field(default_factory=time.time)
    seconds: float = 0.0

    def rows(self, expert: int) -> list[int]:
        """The questions that `expert` answers."""
        return [row for row, number in enumerate(self.chosen) if number == expert]

    def done(self, engine_backend: str | None, experts: int) -> Answers:
        """All answers, in the benchmark's order, with how many questions each expert answered."""
        counts = Counter(self.chosen)
        routed = {"experts": [counts[number] for number in range(experts)], "unreadable": self.unreadable}
        return Answers(
            step=self.step,
            pairs=[self.answers[row] for row in range(len(self.chosen))],
            engine=Transformers.name,
            image_backend=engine_backend,
            started=self.started,
            seconds=self.seconds,
            more={"routed": routed},
        )


@dataclass(frozen=True)
class _Asker:
    """Asks a model questions of a benchmark, after what an earlier try has kept of them."""

    ledger: Ledger
    processor: ProcessorMixin
    batch_size: int
    progress_of: ProgressOf

    def ask(
        self, part: _Part, who: str, doing: str, questions: Benchmark, rows: Sequence[int], model: Callable[[], Any]
    ) -> list[tuple[Example, str]]:
        """The `rows` of `questions` with the answers of `model`, which is called only where some are not answered."""
        partial = PartialAnswers(part.step, self.ledger, {"by": who, "rows": list(rows)}, name=who)
        known, limit = partial.read(), part.step.evaluation.limit
        if len(known) == len(rows):
            pairs = known_answers(questions, limit, known, rows)
        else:
            # a router's questions are of one stage of one order: they would displace those of benchmarks
            pairs = said(
                model(),
                self.processor,
                questions,
                limit=limit,
                batch_size=self.batch_size,
                answered=known,
                rows=rows,
                remember=False,
            )
        answers = list(reported(partial.keep(pairs), self.progress_of(part.number, doing), len(rows)))
        part.seconds += partial.seconds
        return answers


def record_routed(
    steps: Sequence[Evaluate],
    ledger: Ledger,
    routing: Routing,
    load: Load,
    processor: ProcessorMixin,
    *,
    batch_size: int,
    judges: LocalJudges,
    progress_of: ProgressOf,
) -> None:
    """Ask the benchmarks of `steps`, of one checkpoint, and commit their records.

    Besides what every record has, `routed` counts the questions that each expert answered, in the order of the skills, and how many
    answers of the router named none. `seconds` are those of a benchmark's own questions, the router's and the experts'.
    """
    asker = _Asker(ledger, processor, batch_size, progress_of)
    parts = [_Part(number, step) for number, step in enumerate(steps, start=1)]
    _choose(parts, routing, load, asker)
    for number, expert in enumerate(routing.experts):
        _answer(parts, number, expert, load, asker)
        for part in [part for part in parts if len(part.answers) == len(part.chosen)]:
            record_answers(part.done(image_backend(processor), len(routing.experts)), ledger, judges)
            parts.remove(part)


def _choose(parts: Sequence[_Part], routing: Routing, load: Load, asker: _Asker) -> None:
    """Find the expert of every question."""
    if routing.router is None:
        for part in parts:
            part.chosen = [0] * len(part.step.benchmark.take(part.step.evaluation.limit))
        return
    with _loaded(load, routing.router) as model:
        for part in parts:
            benchmark, limit = part.step.benchmark, part.step.evaluation.limit
            questions = routing_questions(benchmark, routing.pool)
            rows = range(len(questions.take(limit)))
            for example, text in asker.ask(part, "router", CHOOSING, questions, rows, model):
                expert, named = choice(text, len(routing.experts), example.id)
                part.chosen.append(expert)
                part.unreadable += not named


def _answer(parts: Sequence[_Part], number: int, expert: Checkpoint, load: Load, asker: _Asker) -> None:
    """Let an expert answer its questions of all benchmarks."""
    with _loaded(load, expert) as model:
        for part in parts:
            if rows := part.rows(number):
                answers = asker.ask(part, f"expert-{number}", ANSWERING, part.step.benchmark, rows, model)
                part.answers |= zip(rows, answers, strict=True)


@contextmanager
def _loaded(load: Load, checkpoint: Checkpoint) -> Iterator[Callable[[], PreTrainedModel]]:
    """A model that is loaded when it is first called for, and gone at the end: there is room for one."""
    models: list[PreTrainedModel] = []

    def model() -> PreTrainedModel:
        if not models:
            models.append(load(checkpoint))
        return models[0]

    try:
        yield model
    finally:
        models.clear()
        gc.collect()  # hooks may refer back to what they hang on
