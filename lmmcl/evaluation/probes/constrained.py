"""Constrained decoding, a causal check of a bias: points that come back when its tokens cannot be said.

Each held-out benchmark is answered greedily three times: freely; with a class of tokens forbidden (benchmarks that ask for
such tokens are left out); and with only the tokens of the reference answers allowed (on a lettered benchmark: the letters).
What the constraint gives back was known all along, and only said wrongly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from lmmcl.evaluation.encodings import Row
from lmmcl.evaluation.generate import answering, decode, greedy, new_tokens
from lmmcl.evaluation.probes.questions import batches, rows_not_about, rows_of
from lmmcl.evaluation.probes.subject import Findings, Subject, mean
from lmmcl.evaluation.probes.token_sets import token_set
from lmmcl.models.encode import IGNORED, pad
from lmmcl.tasks.base import Benchmark
from lmmcl.tasks.metrics import get_metric
from lmmcl.tasks.probes import Constrained


class Forbid(LogitsProcessor):
    """Makes it impossible to say `tokens`, or, with `others`, anything but them."""

    def __init__(self, tokens: Iterable[int], *, others: bool = False) -> None:
        self._tokens, self._others = torch.tensor(sorted(tokens)), others

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        listed = torch.zeros(scores.shape[-1], dtype=torch.bool, device=scores.device)
        listed[self._tokens.to(scores.device)] = True
        return scores.masked_fill(~listed if self._others else listed, float("-inf"))


def measure(probe: Constrained, benchmarks: Sequence[Benchmark], subject: Subject) -> Findings:
    """For `no_<class>` and `only_answers`: `/score`, `/free` (unconstrained, same questions), `/gain`, in points.

    `no_<class>` is absent when every benchmark asks for such tokens.
    """
    forbidden = token_set(subject.processor.tokenizer, probe.forbid)
    gains: dict[str, dict[str, dict[str, float]]] = {f"no_{probe.forbid}": {}, "only_answers": {}}
    for benchmark in benchmarks:
        rows = rows_of(subject.processor, benchmark, probe.examples)
        taught = rows_of(subject.processor, benchmark, probe.examples, with_answer=True)
        free = score(benchmark, rows, subject, None)
        allowed = Forbid(answer_tokens(taught), others=True)
        gains["only_answers"][benchmark.name] = _compare(free, score(benchmark, rows, subject, allowed))
        fine = {id(row[0]) for row in rows_not_about(subject.processor, benchmark, probe.examples, forbidden, 0.0)}
        if forbidden and len(fine) == len(rows):
            gains[f"no_{probe.forbid}"][benchmark.name] = _compare(
                free, score(benchmark, rows, subject, Forbid(forbidden))
            )
    values = {
        f"{constraint}/{what}": mean([each[what] for each in found.values()])
        for constraint, found in gains.items()
        if found
        for what in ("score", "free", "gain")
    }
    return Findings(values, {"by_benchmark": gains, "forbidden": forbidden})


def _compare(free: float, constrained: float) -> dict[str, float]:
    return {"free": free, "score": constrained, "gain": constrained - free}


def answer_tokens(rows: Sequence[Row]) -> set[int]:
    """Every token of the reference answers, with the one that ends a turn."""
    labels = torch.cat([encoded["labels"] for _, encoded in rows])
    return set(labels[labels != IGNORED].tolist())


def score(benchmark: Benchmark, rows: Sequence[Row], subject: Subject, constraint: Forbid | None) -> float:
    """The benchmark's score in points on encoded questions that are answered under a constraint."""
    metric = get_metric(benchmark.metric)
    scores = []
    for some in batches(rows, subject.batch_size):
        texts = say(some, benchmark.max_new_tokens, subject, constraint)
        scores += [metric.score(text, example) for text, (example, _) in zip(texts, some, strict=True)]
    return 100.0 * mean(scores)


def say(rows: Sequence[Row], max_new_tokens: int, subject: Subject, constraint: Forbid | None) -> list[str]:
    """Greedy answers to encoded questions under a constraint."""
    batch = pad(subject.processor, [encoded for _, encoded in rows])
    processors = LogitsProcessorList([constraint] if constraint else [])
    with answering(subject.model, subject.processor):
        output = greedy(subject.model, batch, max_new_tokens, logits_processor=processors)
    return decode(subject.processor, new_tokens(output, batch))
