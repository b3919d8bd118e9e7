"""The engine that is always there: transformers' own `generate`, in padded batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from transformers import PreTrainedModel, ProcessorMixin

from lmmcl.config.cluster import EvaluationPlacement
from lmmcl.evaluation.engines import Engine, EngineKind
from lmmcl.evaluation.generate import said
from lmmcl.ledger import Ledger
from lmmcl.models.processing.resizing import image_backend
from lmmcl.steps import Checkpoint
from lmmcl.tasks.examples import Example
from lmmcl.tasks.skills import Benchmark
from lmmcl.weights.image_features.kept_features import kept_features_of


class Transformers(Engine):
    """A model that is loaded already, used where and as it is: device, precision."""

    name = "transformers"

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, batch_size: int) -> None:
        self.model, self.processor, self.batch_size = model, processor, batch_size
        self.image_backend = image_backend(processor)

    def answers(
        self, benchmark: Benchmark, limit: int | None, *, answered: Sequence[str] = ()
    ) -> Iterator[tuple[Example, str]]:
        return said(self.model, self.processor, benchmark, limit=limit, batch_size=self.batch_size, answered=answered)

    def facts(self) -> Mapping[str, Any]:
        features = kept_features_of(self.model)
        return features.fields() if features else {}


@contextmanager
def _open(
    checkpoint: Checkpoint, ledger: Ledger, placement: EvaluationPlacement, precision: str
) -> Iterator[Transformers]:
    from lmmcl.weights.checkpoint import load_checkpoint

    device = "cuda" if placement.gpus else "cpu"
    model = load_checkpoint(
        checkpoint, ledger, precision=precision, device=device, attention=placement.attention, shared=True
    )
    yield Transformers(model, checkpoint.model.load_processor(), placement.batch_size)


ENGINES = (EngineKind("transformers", _open),)
