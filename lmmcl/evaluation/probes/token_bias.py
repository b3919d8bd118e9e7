"""Token-set bias: how much probability a class of tokens gets where nothing asks for it (number-token bias of LMM-CL).

The model answers greedily; at each generated position the largest probability over the set, and their sum, are noted;
they are averaged over a sample's positions, then over samples (arXiv 2510.08564, "number-token bias"). The position that
ends an answer counts too: there the model could have continued with such a token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from lmmcl.evaluation.encodings import Row
from lmmcl.evaluation.generate import batches, decode
from lmmcl.evaluation.probes.questions import not_about, nothing_left, rows_of
from lmmcl.evaluation.probes.subject import Findings, Subject, mean
from lmmcl.evaluation.probes.token_sets import token_set
from lmmcl.models.generation.decoding import answering, greedy, new_tokens
from lmmcl.models.processing.padding import pad
from lmmcl.tasks.probes import TokenBias
from lmmcl.tasks.skills import Benchmark

POSITIONS_SHOWN = 8
"""Positions with a value of their own; the details hold all."""


class Watch(LogitsProcessor):
    """Notes the largest and the summed probability of `tokens` at each position, and changes nothing."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = torch.tensor(tokens)
        self.largest: list[Tensor] = []
        self.summed: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        chosen = scores.float().softmax(-1)[:, self._tokens.to(scores.device)]
        self.largest.append(chosen.amax(-1).cpu())
        self.summed.append(chosen.sum(-1).cpu())
        return scores


def measure(probe: TokenBias, benchmarks: Sequence[Benchmark], subject: Subject) -> Findings:
    """`max`, `sum`, `said` (share of answers with such a token), and `max/position/N`, `sum/position/N` from 1.

    Raises UserError when every benchmark is about the class of tokens.
    """
    tokens = token_set(subject.processor.tokenizer, probe.tokens)
    samples: list[dict] = []
    for benchmark in benchmarks if tokens else ():
        rows = rows_of(subject.processor, benchmark, probe.examples)
        rows = [rows[place] for place in not_about(subject.processor, benchmark, rows, tokens, probe.share)]
        limit = probe.max_new_tokens or benchmark.max_new_tokens
        for batch in batches(rows, subject.model, subject.batch_size):
            samples += [{"benchmark": benchmark.name, **sample} for sample in _watch(batch, tokens, limit, subject)]
    if not samples:
        raise nothing_left(probe.name, probe.tokens, benchmarks)
    values = {
        "max": mean([mean(sample["max"]) for sample in samples]),
        "sum": mean([mean(sample["sum"]) for sample in samples]),
        "said": mean([float(sample["said"]) for sample in samples]),
    }
    positions = {what: _by_position([sample[what] for sample in samples]) for what in ("max", "sum")}
    for what, means in positions.items():
        values |= {f"{what}/position/{at}": value for at, value in enumerate(means[:POSITIONS_SHOWN], start=1)}
    return Findings(values, {"tokens": tokens, "by_position": positions, "samples": samples})


def _watch(rows: list[Row], tokens: Sequence[int], max_new_tokens: int, subject: Subject) -> list[dict]:
    """For each question: id, answer, whether it holds one of the tokens, and both probabilities by position."""
    watch = Watch(tokens)
    batch = pad(subject.processor, [encoded for _, encoded in rows])
    with answering(subject.model, subject.processor):
        ends = set(subject.model.generation_config.eos_token_id)
        output = greedy(subject.model, batch, max_new_tokens, logits_processor=LogitsProcessorList([watch]))
    new = new_tokens(output, batch).cpu()
    largest, summed = torch.stack(watch.largest, 1).tolist(), torch.stack(watch.summed, 1).tolist()
    watched = []
    for (example, _), token_ids, answer, high, total in zip(
        rows, new.tolist(), decode(subject.processor, new), largest, summed, strict=True
    ):
        length = next((at + 1 for at, token in enumerate(token_ids) if token in ends), len(token_ids))
        holds = bool(set(token_ids[:length]) & set(tokens))
        watched.append({"id": example.id, "answer": answer, "said": holds, "max": high[:length], "sum": total[:length]})
    return watched


def _by_position(samples: Sequence[Sequence[float]]) -> list[float]:
    """The mean at each position over the samples that reach it."""
    longest = max(len(sample) for sample in samples)
    return [mean([sample[at] for sample in samples if len(sample) > at]) for at in range(longest)]
