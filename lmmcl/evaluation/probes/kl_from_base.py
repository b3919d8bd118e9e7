"""KL(base ‖ tuned) on reference answers: how far the tuned model's predictions have moved on what it was not taught."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lmmcl.evaluation.generate import batches
from lmmcl.evaluation.probes.questions import rows_of
from lmmcl.evaluation.probes.subject import Findings, Subject, mean
from lmmcl.evaluation.probes.teacher import answers, forward, per_row
from lmmcl.tasks.probes import KLFromBase
from lmmcl.tasks.skills import Benchmark


def measure(probe: KLFromBase, benchmarks: Sequence[Benchmark], subject: Subject) -> Findings:
    """`mean` over benchmarks and `benchmark/<name>`, in nats: means over answer tokens, then samples."""
    samples: dict[str, dict[str, float]] = {}
    for benchmark in benchmarks:
        by_example: dict[str, float] = {}
        rows = rows_of(subject.processor, benchmark, probe.examples, with_answer=True)
        for batch in batches(rows, subject.model, subject.batch_size):
            answered = answers(subject.processor, batch)
            divergence = kl(forward(subject.base, answered), forward(subject.model, answered)).cpu()
            means = per_row(divergence, answered.row, len(batch)).tolist()
            by_example |= {example.id: value for (example, _), value in zip(batch, means, strict=True)}
        samples[benchmark.name] = by_example
    values = {f"benchmark/{name}": mean(list(by_example.values())) for name, by_example in samples.items()}
    return Findings({"mean": mean(list(values.values())), **values}, {"samples": samples})


def kl(base: Tensor, tuned: Tensor) -> Tensor:
    """Σ p·(log p − log q) in nats, p and q being the softmax of both logits (…, vocabulary): (…) in fp32; never below 0."""
    p, q = base.float().log_softmax(-1), tuned.float().log_softmax(-1)
    return torch.nn.functional.kl_div(q, p, reduction="none", log_target=True).sum(-1).clamp_min(0)
