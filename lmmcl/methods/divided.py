"""Which mitigations and recipes go with strategies that divide a model among its workers."""

from __future__ import annotations

from collections.abc import Callable, Collection

from lmmcl.errors import UserError
from lmmcl.methods.mitigation import Mitigation, TrainingMitigation

DIVIDED = {
    "zero1": ("optimizer",),
    "zero2": ("optimizer",),
    "zero3": ("optimizer", "penalty", "sample_loss", "end"),
    "fsdp": ("optimizer", "penalty", "sample_loss", "end"),
}
"""By strategy, the hooks of a mitigation that would read or change what it has divided among the workers."""


ROUNDED = ("zero1", "zero2")
"""Strategies that leave each worker whole weights, but in half precision only their rounded copies."""


def check_divided(
    mitigation: Mitigation | None, strategy: str, *, trains_head: Callable[[], bool], precision: str = "fp32"
) -> None:
    """Raises UserError when a mitigation reads what a strategy (see DIVIDED; others divide nothing) divides.

    A head that is divided can be run from a frozen copy, but not where it trains. Penalties compare weights with what they were,
    and a step of training is far below what half precision can hold.
    """
    hooks = DIVIDED.get(strategy, ())
    for part in mitigation.parts if mitigation else ():
        if not isinstance(part, TrainingMitigation):
            continue
        if part.runs_head and "penalty" in hooks and trains_head():
            frozen = "a recipe that leaves the head (and embeddings that it shares) frozen"
            others = f"{frozen}, or {part.name} with top_k" if "top_k" in type(part).model_fields else f"or {frozen}"
            raise UserError(
                f"{part.name} runs the head, which trains and which {strategy} divides among the workers; allowed with it: ddp, "
                f"deepspeed with zero_stage 1 or 2, {others}",
                place="training.strategy",
            )
        if part.uses("penalty") and strategy in ROUNDED and precision != "fp32":
            raise UserError(
                f"{part.name} reads the trained weights, and {strategy} in {precision} gives each worker only rounded copies "
                "of them; allowed with it: ddp, or precision: fp32",
                place="training.strategy",
            )
        if part.uses("sample_loss") and "sample_loss" in hooks:
            raise UserError(
                f"{part.name} samples answers of the model while it trains, for which each worker needs all weights, and "
                f"{strategy} divides them among the workers; allowed with it: ddp, deepspeed with zero_stage 1 or 2",
                place="training.strategy",
            )
        used = [hook for hook in hooks if part.uses(hook)]
        if not used:
            continue
        also = (
            ""
            if "optimizer" in used
            else f", deepspeed with zero_stage 1 or 2{'' if precision == 'fp32' else ' in fp32'}"
        )
        raise UserError(
            f"{part.name} reads weights or gradients during training, which {strategy} divides among the workers; "
            f"allowed with it: ddp{also}",
            place="training.strategy",
        )


def check_slices(tensors: Collection[str], strategy: str) -> None:
    """Raises UserError when slices of fused `tensors` (names) would train under a strategy that divides or flattens tensors."""
    if tensors and strategy in DIVIDED:
        raise UserError(
            f"the recipe trains slices of {len(tensors)} fused tensors ({min(tensors)}), which {strategy} divides among the "
            "workers; allowed: ddp, or a recipe that names all parts of the tensor",
            place="training.strategy",
        )
