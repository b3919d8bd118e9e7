"""Where the optimizers of bitsandbytes can run, what they need, and the memory that their states take."""

from __future__ import annotations

from typing import Any

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.config.settings import ADAMW, Training
from lmmcl.errors import UserError
from lmmcl.methods.mitigation import Mitigation
from lmmcl.models.quantized.base_settings import check_package

STATE_BYTES = {"adamw": 8.0, "adamw_8bit": 2 + 8 / 256, "paged_adamw_32bit": 8.0, "paged_adamw_8bit": 2 + 8 / 256}
"""Of a trained parameter: two states of 4 bytes, or of 1 byte with a scale for each 256."""
TRAINER_NAMES = {"adamw": "adamw_torch_fused"}
"""Where the Trainer calls an optimizer otherwise."""


def check_optimizer(training: Training, mitigation: Mitigation | None) -> None:
    """Raises UserError where a mitigation reads an optimizer that keeps its states otherwise than AdamW of torch."""
    if training.optimizer == ADAMW:
        return
    for part in mitigation.parts if mitigation else ():
        in_training: Any = part.in_training
        if in_training is not None and in_training.uses("optimizer"):
            raise UserError(
                f"{part.name} reads AdamW's states, which {training.optimizer} keeps in another form; allowed with {part.name}: "
                f"optimizer: {ADAMW}",
                place="training.optimizer",
            )


def check_placed_optimizer(training: Training, placement: TrainingPlacement) -> None:
    """Raises UserError where the optimizer cannot run as the cluster file places the stage."""
    optimizer = training.optimizer
    if optimizer == ADAMW:
        return
    if optimizer.startswith("paged") and not placement.gpus_per_worker:
        raise UserError(
            f"{optimizer} moves its states between GPU and host memory, and this stage trains on a CPU; allowed there: {ADAMW}, "
            "adamw_8bit (or set training.gpus_per_worker in the cluster file)",
            place="training.optimizer",
        )
    if placement.strategy_name not in ("single", "ddp"):
        raise UserError(
            f"{optimizer} needs whole tensors, but {placement.strategy_name} divides the optimizer's states among the workers. Set "
            f"strategy: ddp in the cluster file, or optimizer: {ADAMW} in the sweep file",
            place="training.optimizer",
        )


def check_optimizer_package(training: Training) -> None:
    """Raises UserError where the optimizer needs a package that is not installed."""
    if training.optimizer != ADAMW:
        check_package(f"optimizer: {training.optimizer}", "training.optimizer")
