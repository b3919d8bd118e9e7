"""The first questions that a loaded model is asked are looked at before they are answered (see `lmmcl.models.self_check`).

Every loaded model once, on the first benchmark that it is asked; and every benchmark once in a process, for whatever model asks
it first: what differs between checkpoints of one model is their weights, and what differs between benchmarks is how they are
encoded.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakSet

from transformers import PreTrainedModel, ProcessorMixin

from lmmcl.errors import UserError
from lmmcl.evaluation.encodings import Row, processor_token
from lmmcl.models.self_check import ROWS_CONSIDERED, SelfCheck
from lmmcl.tasks.skills import Benchmark

if TYPE_CHECKING:
    from lmmcl.models.self_check import Forward

_MODELS: WeakSet[PreTrainedModel] = WeakSet()
_BENCHMARKS: set[str] = set()


def check_questions(
    model: PreTrainedModel, processor: ProcessorMixin, benchmark: Benchmark, rows: Sequence[Row], forward: Forward
) -> None:
    """Hold a model to the rules on the first of `rows`, unless both it and the benchmark were looked at.

    `forward` gives the logits (rows, positions, vocabulary) of the first token of each answer. Raises UserError.
    """
    name = json.dumps([processor_token(processor), benchmark.identity()], sort_keys=True)
    if model in _MODELS and name in _BENCHMARKS:
        return
    half = "float32" not in str(model.dtype)
    check = SelfCheck(model, processor, forward, half=half)
    considered = rows[:ROWS_CONSIDERED]
    fault = check.check_prompts(
        [encoded for _, encoded in considered], [f"example {example.id}" for example, _ in considered]
    )
    if fault:
        raise UserError(fault, file=f"benchmark {benchmark.name}")
    _MODELS.add(model)
    _BENCHMARKS.add(name)
