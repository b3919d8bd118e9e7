"""Benchmarks evaluated on one loaded model: what an Evaluate step computes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from transformers import PreTrainedModel, ProcessorMixin

from lmmcl.evaluation.engines import Engine
from lmmcl.evaluation.engines.transformers import Transformers
from lmmcl.evaluation.generate import answer, said, scored, unscored
from lmmcl.evaluation.partial_answers import PartialAnswers
from lmmcl.evaluation.samples import Sample, write_samples
from lmmcl.ledger import Ledger, Record
from lmmcl.ledger.provenance import provenance
from lmmcl.models.processing.resizing import image_backend
from lmmcl.steps import Evaluate
from lmmcl.tasks.examples import Example
from lmmcl.tasks.skills import Benchmark


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
    step: Evaluate,
    ledger: Ledger,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    *,
    batch_size: int,
    answered: Callable[[int, int], None] | None = None,
) -> Record:
    """Ask the benchmark of `step` and commit its record: score in points, every question's score, `samples.jsonl`.

    What an earlier try, which was killed, had answered is not asked again. `answered` is called now and then with the number of
    questions that are answered and that there are.
    """
    partial = PartialAnswers(step, ledger)
    known, limit = partial.read(), step.evaluation.limit
    answers = said(model, processor, step.benchmark, limit=limit, batch_size=batch_size, answered=known)
    if answered is not None:
        answers = _counted(answers, answered, len(step.benchmark.take(limit)))
    record = _record(
        step, ledger, partial.keep(answers), Transformers.name, image_backend(processor), device=str(model.device)
    )
    partial.remove()
    return record


def _counted(
    answers: Iterator[tuple[Example, str]], answered: Callable[[int, int], None], questions: int
) -> Iterator[tuple[Example, str]]:
    """Pass on `answers`, and tell how many there are about once a second."""
    last = time.monotonic()
    for number, one in enumerate(answers, start=1):
        if time.monotonic() - last >= 1:
            last = time.monotonic()
            answered(number, questions)
        yield one


def record_answers(step: Evaluate, ledger: Ledger, engine: Engine) -> Record:
    """As `record_scores`, whoever answers; the record names the engine."""
    return _record(
        step, ledger, engine.answers(step.benchmark, step.evaluation.limit), engine.name, engine.image_backend
    )


def _record(
    step: Evaluate,
    ledger: Ledger,
    answers: Iterable[tuple[Example, str]],
    engine: str,
    image_backend: str | None,
    *,
    device: str = "cpu",
) -> Record:
    begun = time.time()
    return record_texts(step, ledger, answers, engine=engine, image_backend=image_backend, started=begun, device=device)


def record_texts(
    step: Evaluate,
    ledger: Ledger,
    answers: Iterable[tuple[Example, str]],
    *,
    engine: str,
    image_backend: str | None,
    started: float,
    more: Mapping[str, Any] | None = None,
    device: str = "cpu",
) -> Record:
    """Score `answers`, in the benchmark's order, and commit them with `more` fields; `started` is when the first was asked for."""
    samples, judging = _score(step, ledger, answers, device)
    with ledger.writing(step) as draft:
        write_samples(draft.folder / "samples.jsonl", samples)
        scores = balanced(samples, step.benchmark.balance)
        return draft.commit(
            {
                "score": 100.0 * sum(scores) / len(scores),
                "sample_scores": scores,
                "engine": engine,
                "image_backend": image_backend,
                **(more or {}),
                **judging,
                "seconds": time.time() - started,
                "provenance": provenance(started),
            }
        )


def _score(
    step: Evaluate, ledger: Ledger, answers: Iterable[tuple[Example, str]], device: str
) -> tuple[list[Sample], dict[str, Any]]:
    """(scored answers, what the record holds of their judge). A local judge runs on `device`."""
    judge = step.benchmark.judge
    if judge is None:
        return scored(step.benchmark, answers), {}
    from lmmcl.evaluation.judging.judging import judge_samples

    samples, facts = judge_samples(step.benchmark.name, judge, unscored(answers), ledger, device)
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
