"""A model's answers to a benchmark: greedy, in batches padded on the left, the same whatever the batch size.

Whoever needs more than the words (logits at each position, say) asks `greedy` for them with transformers' own switches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin

from lmmcl.errors import UserError
from lmmcl.evaluation.encodings import Row, question, windows
from lmmcl.evaluation.prompt_check import check_questions
from lmmcl.evaluation.question_cache import question_cache
from lmmcl.evaluation.samples import Sample
from lmmcl.models.generation.decoding import answering, greedy, new_tokens
from lmmcl.models.processing.answers import answer_text
from lmmcl.models.processing.padding import pad
from lmmcl.models.processing.position_limit import check_positions, position_limits
from lmmcl.tasks.examples import IMAGE_PLACEHOLDER, Example
from lmmcl.tasks.skills import Benchmark

BATCHES_PER_WINDOW, WINDOW = 8, 512
"""Questions are sorted by length within windows of this many batches, or of this many questions if fewer: enough to pad little, few
enough to hold their images in memory."""
CPU_TOKENS = 16_384
"""Tokens that a CPU reads at once: it reads more no faster, and a photograph takes thousands."""


def answer(
    model: PreTrainedModel, processor: ProcessorMixin, benchmark: Benchmark, *, limit: int | None, batch_size: int
) -> list[Sample]:
    """The scored answers to the questions that `limit` takes (None: all), in the benchmark's order.

    `batch_size` says how many are answered at once, on a CPU at most (CPU_TOKENS), and changes no answer (in half precision,
    up to a tie of two words within rounding). Raises UserError that names benchmark and example for a question that cannot
    be read or a reference that the metric cannot.
    """
    return scored(benchmark, said(model, processor, benchmark, limit=limit, batch_size=batch_size))


def said(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    benchmark: Benchmark,
    *,
    limit: int | None,
    batch_size: int,
    answered: Sequence[str] = (),
    rows: Sequence[int] | None = None,
    remember: bool = True,
) -> Iterator[tuple[Example, str]]:
    """The questions that `limit` takes, or those `rows` of them, with the model's answers, in the benchmark's order.

    `answered` are the answers to the first questions, where an earlier try has given them. `remember` keeps the encoded questions
    for others who ask them: not those that are asked once.
    """
    if batch_size < 1 or (limit is not None and limit < 1):
        raise ValueError(f"batch_size {batch_size} and limit {limit} must be at least 1")
    if answered:
        yield from known_answers(benchmark, limit, answered, rows)
    with answering(model, processor):
        size = max(batch_size, min(batch_size * BATCHES_PER_WINDOW, WINDOW))
        limits = position_limits(model)
        encoded_windows = windows(
            processor,
            benchmark,
            limit,
            size,
            rows=rows,
            skip=len(answered),
            remember=remember,
            disk=question_cache(),
        )
        for number, window in enumerate(encoded_windows):
            for example, encoded in window:
                _check_length(benchmark, example, encoded, limits)
            if not number:
                check_questions(model, processor, benchmark, window, lambda batch: _first_logits(model, batch))
            texts = answer_window(model, processor, window, benchmark.max_new_tokens, batch_size)
            yield from ((example, text) for (example, _), text in zip(window, texts, strict=True))


def known_answers(
    benchmark: Benchmark, limit: int | None, answers: Sequence[str], rows: Sequence[int] | None = None
) -> Iterator[tuple[Example, str]]:
    """The first questions that `limit` takes, or the first of those `rows`, with answers that an earlier try has given them."""
    examples = benchmark.take(limit)
    places = range(len(answers)) if rows is None else rows
    return ((question(benchmark, examples, place), text) for place, text in zip(places, answers, strict=False))


def _first_logits(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    """What decides the first token of each answer, (rows, 1, vocabulary)."""
    logits = greedy(model, batch, 1, output_logits=True).logits
    assert logits is not None, "they were asked for"
    return logits[0][:, None]


def _check_length(benchmark: Benchmark, example: Example, encoded: dict[str, Tensor], limits: dict[str, int]) -> None:
    try:
        check_positions(encoded, limits, answer_tokens=benchmark.max_new_tokens)
    except UserError as error:
        raise error.at(file=f"benchmark {benchmark.name}", place=f"example {example.id}") from error


def scored(benchmark: Benchmark, answers: Iterable[tuple[Example, str]]) -> list[Sample]:
    """Answers with their scores, whoever gave them; raises UserError for a reference that the metric cannot read.

    A judge's benchmark is scored by `lmmcl.evaluation.judging`, which remembers verdicts in a store.
    """
    if benchmark.judge is not None:
        raise UserError(
            "is scored by a judge, which is asked where a step is recorded", file=f"benchmark {benchmark.name}"
        )
    metric = benchmark.scoring()
    answered = [(text, example) for example, text in answers]
    try:
        if metric.together is None or not answered:
            scores = [metric.score(text, example) for text, example in answered]
        else:
            scores = metric.together(answered)
    except UserError as error:
        raise error.at(file=f"benchmark {benchmark.name}") from error
    return [_sample(example, text, score) for (text, example), score in zip(answered, scores, strict=True)]


def unscored(answers: Iterable[tuple[Example, str]]) -> list[Sample]:
    """Answers for a judge; their scores are 0 until it has read them."""
    return [_sample(example, text, 0.0) for example, text in answers]


def answer_window(
    model: PreTrainedModel, processor: ProcessorMixin, rows: Sequence[Row], max_new_tokens: int, batch_size: int
) -> list[str]:
    """The answers to encoded questions, in their order; longest questions first, so that memory peaks at once."""
    order = sorted(range(len(rows)), key=lambda index: -_length(rows[index]))
    texts: list[str] = []
    for window in batches([rows[index] for index in order], model, batch_size):
        batch = pad(processor, [encoded for _, encoded in window])
        texts += decode(processor, new_tokens(greedy(model, batch, max_new_tokens), batch))
    return [text for _, text in sorted(zip(order, texts, strict=True))]


def batches(rows: Iterable[Row], model: PreTrainedModel, batch_size: int) -> Iterator[list[Row]]:
    """Rows in order, in lists of at most `batch_size`, and of at most CPU_TOKENS tokens (padded) where a CPU reads them."""
    most = CPU_TOKENS if model.device.type == "cpu" else None
    batch: list[Row] = []
    longest = 0
    for row in rows:
        longest = max(longest, _length(row))
        if batch and (len(batch) == batch_size or (most is not None and (len(batch) + 1) * longest > most)):
            yield batch
            batch, longest = [], _length(row)
        batch.append(row)
    if batch:
        yield batch


def _length(row: Row) -> int:
    return len(row[1]["input_ids"])


def decode(processor: ProcessorMixin, tokens: Tensor) -> list[str]:
    """The texts of generated tokens (batch, tokens), without control tokens and outer spaces."""
    return [answer_text(processor, row) for row in tokens.tolist()]


def _sample(example: Example, prediction: str, score: float) -> Sample:
    question = "\n".join(message.content for message in example.prompt).replace(IMAGE_PLACEHOLDER, "").strip()
    return Sample(example.id, question, example.references, prediction, score, dict(example.metadata))
