"""Whether a perfect answer would score 1: every reference as a model would say it, before anything is computed.

Each reference is encoded as it would be taught, cut at the benchmark's `max_new_tokens`, decoded and scored as an answer is. What
falls short can never be learnt, however good the model: references that are longer, or that the tokenizer gives back otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from lmmcl.errors import UserError
from lmmcl.models.processing.answers import answer_text
from lmmcl.models.processing.encode import answer_ids
from lmmcl.tasks.examples import Example, Message
from lmmcl.tasks.metrics.metric import Metric, metric_names
from lmmcl.tasks.skills import Benchmark

QUESTION = (Message("user", "?"),)
"""How an answer is tokenised depends on the chat template and not on what was asked."""
SHOWN = 3
NEARLY = 1e-9


@dataclass
class Attainable:
    """What the best answers to `asked` questions of a benchmark score; `short` are those below 1, each with its reason."""

    benchmark: str
    model: str
    asked: int = 0
    short: dict[str, list[str]] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        """How many questions no answer can get right."""
        return sum(map(len, self.short.values()))

    def notes(self) -> list[str]:
        """One line for each reason: how many questions, and the first of them."""
        return [
            f"{self.benchmark}: a perfect answer of {self.model} scores less than 1 for {len(places)} of {self.asked} questions: "
            f"{reason}, such as {'; '.join(places[:SHOWN])}"
            for reason, places in self.short.items()
        ]

    def check(self) -> None:
        """Raises UserError where no answer can be right for most questions."""
        if 2 * self.lost > self.asked:
            listed = "\n".join(f"- {note.partition(': ')[2]}" for note in self.notes())
            remedy = "Raise max_new_tokens, choose another metric, or shorten the references"
            raise UserError(
                f"most questions cannot be answered correctly:\n{listed}\n{remedy}", file=f"benchmark {self.benchmark}"
            )


class Speaker:
    """Says references as one model would, each once; `processor` is its processor."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self._ids: Callable[[str], list[int]] = cache(lambda text: answer_ids(processor, QUESTION, text))

    def says(self, reference: str, max_new_tokens: int | None = None) -> str:
        """The reference after encoding, cutting and decoding."""
        return answer_text(self.processor, self._ids(reference)[:max_new_tokens])


def attainable(
    model: str, processor: Any, benchmark: Benchmark, limit: int | None, examples: Sequence[Example] | None = None
) -> Attainable:
    """What a perfect answer scores on the questions that `limit` takes; raises UserError for a reference that cannot be read.

    `examples` are these questions (no images are needed), where they are known.
    """
    metric, speaker = benchmark.scoring(), Speaker(processor)
    examples = benchmark.take(limit) if examples is None else examples
    result = Attainable(benchmark.name, model, len(examples))
    try:
        shortfalls = (
            _together(metric, examples, speaker, benchmark)
            if metric.together
            else _each(metric, examples, speaker, benchmark)
        )
        for reason, place in shortfalls:
            result.short.setdefault(reason, []).append(place)
    except UserError as error:
        raise error.at(file=f"benchmark {benchmark.name}") from error
    return result


def _each(
    metric: Metric, examples: Iterable[Example], speaker: Speaker, benchmark: Benchmark
) -> Iterable[tuple[str, str]]:
    for example in examples:
        references = list(dict.fromkeys(example.references))
        predictions = _said(speaker, example, references, benchmark)
        if any(metric.score(text, example) > 1 - NEARLY for text in predictions):
            continue
        ideal = max(metric.score(reference, example) for reference in references)
        if ideal > max(metric.score(text, example) for text in predictions) + NEARLY:
            yield (
                _reason(references[0], predictions[0], speaker, benchmark),
                _place(example, references[0], predictions[0]),
            )
        elif metric.name in metric_names():
            yield f"{metric.name} scores the reference itself below 1", _place(example, references[0], predictions[0])


def _said(speaker: Speaker, example: Example, references: Sequence[str], benchmark: Benchmark) -> list[str]:
    try:
        return [speaker.says(reference, benchmark.max_new_tokens) for reference in references]
    except UserError as error:
        raise error.at(place=f"example {example.id!r}") from error


def _together(
    metric: Metric, examples: Sequence[Example], speaker: Speaker, benchmark: Benchmark
) -> Iterable[tuple[str, str]]:
    """Where a metric weighs all answers together, the bound is not 1 but the score of the reference itself."""
    assert metric.together is not None
    rows = [(example.references[0], example) for example in examples]
    predictions = [(_said(speaker, example, [reference], benchmark)[0], example) for reference, example in rows]
    if all(text.split() == reference.split() for (text, _), (reference, _) in zip(predictions, rows, strict=True)):
        return
    scores = zip(metric.together(predictions), metric.together(rows), predictions, rows, strict=True)
    for have, ideal, (text, example), (reference, _) in scores:
        if have < ideal - NEARLY:
            yield _reason(reference, text, speaker, benchmark), _place(example, reference, text)


def _reason(reference: str, prediction: str, speaker: Speaker, benchmark: Benchmark) -> str:
    whole = speaker.says(reference)
    if whole != prediction:
        return f"the reference is longer than max_new_tokens ({benchmark.max_new_tokens})"
    return "its tokenizer decodes the reference to another text"


def _place(example: Example, reference: str, prediction: str) -> str:
    return f"{example.id!r} ({_short(reference)} becomes {_short(prediction)})"


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:59]}…")
