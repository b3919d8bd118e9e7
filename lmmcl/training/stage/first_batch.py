"""Faults that end a stage by themselves: a first batch that breaks a rule of training, an update in which nothing learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback
from transformers.trainer_callback import TrainerControl, TrainerState

from lmmcl.models.processing.padding import IGNORED
from lmmcl.models.self_check import ROWS_CONSIDERED, SelfCheck
from lmmcl.training.efficiency.packed_rows import check_packing
from lmmcl.training.stage.collate import StageData
from lmmcl.training.stage_errors import StageError

NAMED = 3
"""Rows that an error names."""
NO_IMAGES = (
    "; none has an image, and rows without one teach nothing to what only looks at images: leave them out, raise "
    "global_batch_size, or train a part of the language model too"
)


def check_first_batch(trainer: Any) -> None:  # a StageTrainer, which imports this
    """Hold model and processor to the rules of `SelfCheck`, on the first rows that the stage learns from.

    All workers look at the same rows, so that they run the same parts of a divided model. Raises StageError for what is wrong.
    """
    data: StageData = trainer.train_dataset
    rows = list(dict.fromkeys(data.rows[: min(ROWS_CONSIDERED, trainer.step.training.global_batch_size)]))
    model = trainer.taught

    def forward(batch: Mapping[str, Tensor]) -> Tensor:
        first = int((batch["labels"] != IGNORED).any(dim=0).int().argmax())
        inputs = trainer.model_inputs(batch, batch["labels"].shape[1] - first + 1)
        with torch.no_grad(), trainer.accelerator.autocast():
            return model(**trainer.prepare_batch(inputs)).logits

    check = SelfCheck(model, data.processor, forward, half=trainer.step.training.precision != "fp32")
    model.eval()  # until the Trainer's own `train`, which comes next
    if fault := check.check_training([data.encoded(row) for row in rows], [_name(data, row) for row in rows]):
        raise StageError.of(trainer.step, fault)


def check_first_packed(trainer: Any) -> None:
    """Hold a model to what packing needs, on the shortest and the longest of the first rows. Raises StageError where it fails."""
    data: StageData = trainer.train_dataset
    rows = list(dict.fromkeys(data.rows[: min(ROWS_CONSIDERED, trainer.step.training.global_batch_size)]))
    encoded = sorted((data.encoded(row) for row in rows), key=lambda row: len(row["input_ids"]))

    def forward(batch: Mapping[str, Tensor]) -> Tensor:
        inputs = trainer.prepare_batch(trainer.model_inputs(trainer.prepare_batch(dict(batch)), None))
        with torch.no_grad(), trainer.accelerator.autocast():
            return trainer.taught(**inputs).logits

    half = trainer.step.training.precision != "fp32"
    if fault := check_packing(trainer.taught, data.processor, encoded, forward, half=half):
        raise StageError.of(trainer.step, f"{fault}; set training.packing: false in the cluster file")


class CheckGradient(TrainerCallback):
    """Ends a stage at an update in which no row, of any worker, reaches what trains. A batch without one is not a fault."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def on_pre_optimizer_step(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        trainer, reached = self._trainer, self._trainer.has_gradient
        trainer.has_gradient = False
        if reached or any(_moves(parameter) for parameter in trainer.taught.parameters() if parameter.requires_grad):
            return
        data: StageData = trainer.train_dataset
        size = trainer.step.training.global_batch_size
        rows = data.rows[state.global_step * size : (state.global_step + 1) * size]
        names = ", ".join(_name(data, row) for row in rows[:NAMED]) + (
            f" and {size - NAMED} more" if size > NAMED else ""
        )
        blind = "" if any(data.examples[row].images for row in rows) else NO_IMAGES
        raise StageError.of(
            trainer.step,
            f"update {state.global_step + 1} of {state.max_steps} has no gradient: its loss does not depend on what "
            f"{list(trainer.step.recipe.selectors)} names (rows: {names}){blind}",
        )


def _moves(parameter: Tensor) -> bool:
    """Whether a gradient may move a parameter. DeepSpeed keeps gradients elsewhere; what a whole stage lacks, its proof shows."""
    if hasattr(parameter, "ds_id") or hasattr(parameter, "_hp_mapping"):
        return True
    return parameter.grad is not None and bool(parameter.grad.any())


def _name(data: StageData, row: int) -> str:
    return f"row {data.examples[row].id!r}"
