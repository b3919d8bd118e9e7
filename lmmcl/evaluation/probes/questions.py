"""The questions that probes look at: the first of a benchmark, encoded with or without their answers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from transformers import ProcessorMixin

from lmmcl.errors import UserError
from lmmcl.evaluation.encodings import Row, windows
from lmmcl.evaluation.probes.token_sets import reference_tokens
from lmmcl.tasks.base import Benchmark


def rows_of(processor: ProcessorMixin, benchmark: Benchmark, count: int, *, with_answer: bool = False) -> list[Row]:
    """The first `count` questions of a benchmark, encoded; with their answers for teacher forcing."""
    return [row for window in windows(processor, benchmark, count, count, with_answer=with_answer) for row in window]


def batches(rows: Sequence[Row], size: int) -> Iterator[list[Row]]:
    """Rows in lists of at most `size`, in order."""
    for start in range(0, len(rows), size):
        yield list(rows[start : start + size])


def rows_not_about(
    processor: ProcessorMixin, benchmark: Benchmark, count: int, tokens: Collection[int], share: float
) -> list[Row]:
    """Those of the first `count` questions whose reference answers hold none of `tokens`.

    None at all when more than `share` of the answers hold one: the benchmark is about such tokens.
    """
    rows = rows_of(processor, benchmark, count)
    wanted = set(tokens)
    references = reference_tokens(processor.tokenizer, [example for example, _ in rows])
    fine = [row for row, held in zip(rows, references, strict=True) if not wanted & held]
    return fine if len(rows) - len(fine) <= share * len(rows) else []


def nothing_left(probe: str, kind: str, benchmarks: Sequence[Benchmark]) -> UserError:
    """The error for a sweep whose held-out benchmarks are all about a class of tokens."""
    names = ", ".join(benchmark.name for benchmark in benchmarks)
    return UserError(
        f"the answers of every held-out benchmark ({names}) hold {kind} tokens; list another one, or raise `share`",
        place=f"probe {probe}",
    )
