"""Weights of a checkpoint as a transformers model, and the processor that goes with it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from lmmcl.errors import UserError
from lmmcl.inspection.stored_trials import find_checkpoint
from lmmcl.ledger import Ledger
from lmmcl.ledger.named_store import open_ledger
from lmmcl.models import get_model
from lmmcl.models.sources.reference import is_reference
from lmmcl.steps import Checkpoint, Pretrained

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin


def load_model(
    checkpoint: str,
    *,
    store: str | Path | None = None,
    precision: str | None = None,
    device: str = "cpu",
    attention: str = "sdpa",
) -> PreTrainedModel:
    """The model that a recorded checkpoint ended in, in evaluation mode: an ordinary transformers model, yours to change.

    `checkpoint` is a key (`checkpoint_key` in `Results.trials()` and `Results.scores()`), the beginning of one, the name of its
    folder in the store, the name of a trial (its last checkpoint), or the name or path of a pre-trained model. `precision` is
    fp32, bf16 or fp16 (default: the one it was trained in; fp32 for a pre-trained model), `attention` an implementation that
    transformers knows.
    Raises UserError, with the nearest names, for a checkpoint that the store does not hold or whose weights were dropped.
    """
    from lmmcl.weights.checkpoint import load_checkpoint

    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else DeepSpeed prints on import
    ledger = open_ledger(None if store is None else str(store))
    step = _checkpoint(checkpoint, ledger)
    record = ledger.find(step)
    precision = precision or (record.fields.get("precision") if record else None) or "fp32"
    if precision not in ("fp32", "bf16", "fp16"):
        raise UserError(f"precision is fp32, bf16 or fp16, not {precision!r}")
    return load_checkpoint(step, ledger, precision=precision, device=device, attention=attention)


def load_processor(checkpoint: str, *, store: str | Path | None = None) -> ProcessorMixin:
    """Tokenizer, image processor and chat template of the model that a checkpoint came from; `checkpoint` as in `load_model`."""
    return _checkpoint(checkpoint, open_ledger(None if store is None else str(store))).model.load_processor()


def _checkpoint(wanted: str, ledger: Ledger) -> Checkpoint:
    if is_reference(wanted):
        return Pretrained(get_model(wanted))
    ledger.check_exists()
    return find_checkpoint(ledger, wanted)
