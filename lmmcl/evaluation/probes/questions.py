"""The questions that probes look at (a sample of a benchmark, encoded with or without their answers), and answers to them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from transformers import LogitsProcessor, LogitsProcessorList, ProcessorMixin

from lmmcl.errors import UserError
from lmmcl.evaluation.encodings import Row, windows
from lmmcl.evaluation.generate import decode
from lmmcl.evaluation.probes.subject import Subject
from lmmcl.evaluation.probes.token_sets import reference_tokens
from lmmcl.models.generation.decoding import answering, greedy, new_tokens
from lmmcl.models.processing.padding import pad
from lmmcl.tasks.probes import captions
from lmmcl.tasks.skills import Benchmark


def rows_of(processor: ProcessorMixin, benchmark: Benchmark, count: int, *, with_answer: bool = False) -> list[Row]:
    """A fixed sample of `count` questions of a benchmark, encoded; with their answers for teacher forcing."""
    return [row for window in windows(processor, benchmark, count, count, with_answer=with_answer) for row in window]


def not_about(
    processor: ProcessorMixin, benchmark: Benchmark, rows: Sequence[Row], tokens: Collection[int], share: float
) -> list[int]:
    """The places of those rows of `benchmark` whose reference answers hold none of `tokens`.

    None at all when more than `share` of the answers hold one: the benchmark is about such tokens, unless it asks for captions.
    """
    wanted = set(tokens)
    references = reference_tokens(processor.tokenizer, [example for example, _ in rows])
    fine = [place for place, held in enumerate(references) if not wanted & held]
    return fine if captions([benchmark]) or len(rows) - len(fine) <= share * len(rows) else []


def say(
    rows: Sequence[Row], max_new_tokens: int, subject: Subject, constraint: LogitsProcessor | None = None
) -> list[str]:
    """Greedy answers to encoded questions, all at once, under a constraint."""
    batch = pad(subject.processor, [encoded for _, encoded in rows])
    processors = LogitsProcessorList([constraint] if constraint else [])
    with answering(subject.model, subject.processor):
        output = greedy(subject.model, batch, max_new_tokens, logits_processor=processors)
    return decode(subject.processor, new_tokens(output, batch))


def nothing_left(probe: str, kind: str, benchmarks: Sequence[Benchmark]) -> UserError:
    """The error for a sweep whose held-out benchmarks are all about a class of tokens."""
    names = ", ".join(benchmark.name for benchmark in benchmarks)
    return UserError(
        f"the answers of every held-out benchmark ({names}) hold {kind} tokens; list another one, or raise `share`",
        place=f"probe {probe}",
    )
