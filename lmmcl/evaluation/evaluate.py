"""Benchmarks evaluated on a loaded checkpoint: what an Evaluate step computes, whoever answers and whoever scores."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedModel, ProcessorMixin

from lmmcl.evaluation.engines import Engine
from lmmcl.evaluation.generate import answer, scored, unscored
from lmmcl.evaluation.judging.local_judge import LocalJudges
from lmmcl.evaluation.partial_answers import PartialAnswers, forget_answers
from lmmcl.evaluation.samples import Sample, write_samples
from lmmcl.ledger import Ledger, Record
from lmmcl.ledger.provenance import provenance
from lmmcl.steps import Evaluate
from lmmcl.tasks.examples import Example
from lmmcl.tasks.skills import Benchmark

OnAnswer = Callable[[int, int], None]
"""Called now and then with the number of questions that are answered and that there are."""


@dataclass(frozen=True)
class Answers:
    """All answers to a benchmark, in its order, with what its record says of how they came.

    `started` is when this try began (seconds since 1970), `seconds` how long all tries took to answer; `more` are further fields.
    """

    step: Evaluate
    pairs: Sequence[tuple[Example, str]]
    engine: str
    image_backend: str | None
    started: float
    seconds: float
    more: Mapping[str, Any] = field(default_factory=dict)


def score_benchmarks(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    benchmarks: Sequence[Benchmark],
    *,
    limit: int | None,
    batch_size: int,
) -> dict[str, list[Sample]]:
    """Every benchmark's scored answers by benchmark name, in the order of the questions.

    `limit` (identity) asks a fixed sample of each; `batch_size` (execution) changes no answer. The model is used
    where and as it is: device, precision. Raises UserError that names benchmark and example for what cannot be read, and
    ValueError for two benchmarks of one name.
    """
    names = [benchmark.name for benchmark in benchmarks]
    if len(set(names)) < len(names):
        raise ValueError(f"benchmarks must have different names: {', '.join(names)}")
    return {
        benchmark.name: answer(model, processor, benchmark, limit=limit, batch_size=batch_size)
        for benchmark in benchmarks
    }


def record_scores(
    step: Evaluate, ledger: Ledger, engine: Engine, *, judges: LocalJudges, on_answer: OnAnswer
) -> Record:
    """Ask the benchmark of `step` and commit its record: score in points, every question's score, `samples.jsonl`.

    What an earlier try, which was killed, had answered is not asked again.
    """
    return record_answers(ask_benchmark(step, ledger, engine, on_answer), ledger, judges)


def ask_benchmark(step: Evaluate, ledger: Ledger, engine: Engine, on_answer: OnAnswer) -> Answers:
    """The answers of `engine`, after what an earlier try of the same engine has kept."""
    started = time.time()
    partial, limit = PartialAnswers(step, ledger, {"by": engine.name}), step.evaluation.limit
    answers = partial.keep(engine.answers(step.benchmark, limit, answered=partial.read()))
    counted = reported(answers, on_answer, len(step.benchmark.take(limit)))
    pairs = [(dataclasses.replace(example, images=()), text) for example, text in counted]
    return Answers(step, pairs, engine.name, engine.image_backend, started, partial.seconds, engine.facts())


def reported(
    answers: Iterator[tuple[Example, str]], on_answer: OnAnswer, questions: int
) -> Iterator[tuple[Example, str]]:
    """Pass on `answers`, and tell how many there are about once a second."""
    last = time.monotonic()
    for number, pair in enumerate(answers, start=1):
        if time.monotonic() - last >= 1:
            last = time.monotonic()
            on_answer(number, questions)
        yield pair


def record_answers(answers: Answers, ledger: Ledger, judges: LocalJudges) -> Record:
    """Score answers, ask a judge where the benchmark has one, and commit them; what was kept of them is removed."""
    step, begun = answers.step, time.monotonic()
    samples, judging = _score(answers, ledger, judges)
    with ledger.writing(step) as draft:
        write_samples(draft.folder / "samples.jsonl", samples)
        scores = balanced(samples, step.benchmark.balance)
        record = draft.commit(
            {
                "score": 100.0 * sum(scores) / len(scores),
                "sample_scores": scores,
                "engine": answers.engine,
                "image_backend": answers.image_backend,
                **answers.more,
                **judging,
                "seconds": answers.seconds + time.monotonic() - begun,
                "provenance": provenance(answers.started),
            }
        )
    forget_answers(step, ledger)
    return record


def _score(answers: Answers, ledger: Ledger, judges: LocalJudges) -> tuple[list[Sample], dict[str, Any]]:
    """(scored answers, what the record holds of their judge)."""
    benchmark = answers.step.benchmark
    if benchmark.judge is None:
        return scored(benchmark, answers.pairs), {}
    from lmmcl.evaluation.judging.judging import judge_samples

    samples, facts = judge_samples(benchmark.name, benchmark.judge, unscored(answers.pairs), ledger, judges)
    return samples, {"judge": facts}


def balanced(samples: Sequence[Sample], field: str | None) -> list[float]:
    """Scores whose plain mean is the benchmark's score.

    Without `field` they are the samples' own. With it they are weighted so that each value of that field of the metadata counts
    the same (MMStar's second-level categories): N questions, K values, n with this value → score · N / (K · n).
    """
    if field is None:
        return [sample.score for sample in samples]
    sizes = Counter(sample.metadata[field] for sample in samples)
    share = len(samples) / len(sizes)
    return [sample.score * share / sizes[sample.metadata[field]] for sample in samples]
