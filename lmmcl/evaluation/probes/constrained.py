"""Constrained decoding, a causal check of a bias: points that come back when its tokens cannot be said.

Each held-out benchmark is answered greedily three times: freely; with a class of tokens forbidden (benchmarks that ask for
such tokens, and single questions that do, are left out); and with only the tokens of the benchmark's reference answers
allowed (on a lettered benchmark: its letters). What the constraint gives back was known all along, and only said wrongly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor

from lmmcl.evaluation.encodings import Row
from lmmcl.evaluation.generate import batches
from lmmcl.evaluation.probes.questions import not_about, rows_of, say
from lmmcl.evaluation.probes.subject import Findings, Subject, mean
from lmmcl.evaluation.probes.token_sets import token_set
from lmmcl.models.processing.padding import IGNORED
from lmmcl.tasks.probes import Constrained
from lmmcl.tasks.skills import Benchmark


class Forbid(LogitsProcessor):
    """Makes it impossible to say `tokens`, or, with `others`, anything but them."""

    def __init__(self, tokens: Iterable[int], *, others: bool = False) -> None:
        self._tokens, self._others = torch.tensor(sorted(tokens)), others

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        listed = torch.zeros(scores.shape[-1], dtype=torch.bool, device=scores.device)
        listed[self._tokens.to(scores.device)] = True
        return scores.masked_fill(~listed if self._others else listed, float("-inf"))


def measure(probe: Constrained, benchmarks: Sequence[Benchmark], subject: Subject) -> Findings:
    """For `no_<class>` and `only_answers`: `/score`, `/free` (unconstrained, same questions) and `/gain`, in points.

    `no_<class>` is absent when every benchmark asks for such tokens.
    """
    forbidden = token_set(subject.processor.tokenizer, probe.forbid)
    without = f"no_{probe.forbid}"
    comparisons: dict[str, dict[str, dict[str, float]]] = {without: {}, "only_answers": {}}
    for benchmark in benchmarks:
        rows = rows_of(subject.processor, benchmark, probe.examples)
        taught = rows_of(subject.processor, benchmark, probe.examples, with_answer=True)
        free = scores(benchmark, rows, subject, None)
        only = scores(benchmark, rows, subject, Forbid(answer_tokens(taught), others=True))
        comparisons["only_answers"][benchmark.name] = _compare(free, only)
        if fine := not_about(subject.processor, benchmark, rows, forbidden, probe.share):
            kept = scores(benchmark, [rows[place] for place in fine], subject, Forbid(forbidden))
            comparisons[without][benchmark.name] = _compare([free[place] for place in fine], kept)
    values = {
        f"{constraint}/{what}": mean([measured[what] for measured in by_benchmark.values()])
        for constraint, by_benchmark in comparisons.items()
        if by_benchmark
        for what in ("score", "free", "gain")
    }
    return Findings(values, {"by_benchmark": comparisons, "forbidden": forbidden})


def _compare(free: Sequence[float], constrained: Sequence[float]) -> dict[str, float]:
    before, after = 100 * mean(free), 100 * mean(constrained)
    return {"free": before, "score": after, "gain": after - before}


def answer_tokens(rows: Sequence[Row]) -> set[int]:
    """Every token of the reference answers, with the one that ends a turn."""
    labels = torch.cat([encoded["labels"] for _, encoded in rows])
    return set(labels[labels != IGNORED].tolist())


def scores(benchmark: Benchmark, rows: Sequence[Row], subject: Subject, constraint: Forbid | None) -> list[float]:
    """The score in [0, 1] of each encoded question when it is answered under a constraint."""
    score = benchmark.scoring().score
    values = []
    for batch in batches(rows, subject.model, subject.batch_size):
        texts = say(batch, benchmark.max_new_tokens, subject, constraint)
        values += [score(text, example) for text, (example, _) in zip(texts, batch, strict=True)]
    return values
