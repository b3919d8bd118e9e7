"""What can be done over quantised weights, and how much of a model they are: told from its inventory alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from lmmcl.config.settings import BYTES
from lmmcl.errors import UserError
from lmmcl.methods.recipes.adapters import LoRA
from lmmcl.methods.recipes.recipe import Recipe
from lmmcl.models.linears import linear_shapes
from lmmcl.models.lmm import LMM
from lmmcl.models.roles import select, summary
from lmmcl.steps.stage_settings import StageSettings

HEAD = "llm.head"
WHOLE = ("single", "ddp")
"""Strategies in which each worker has all weights as they are."""


@cache
def quantized_shapes(lmm: LMM) -> Mapping[str, Sequence[tuple[int, int]]]:
    """The shapes of the linear layers that are quantised, by role; none of a model as it comes."""
    base = lmm.settings.base
    if base is None:
        return {}
    chosen = select({role: role for role in lmm.role_counts()}, base.layers, model=lmm.name) - {HEAD}
    return {role: shapes for role, shapes in linear_shapes(lmm).items() if role in chosen}


def weight_bytes(lmm: LMM, precision: str) -> int:
    """What the weights of `lmm` take in `precision`, quantised layers in 4 bits."""
    layers = [shape for shapes in quantized_shapes(lmm).values() for shape in shapes]
    plain = sum(lmm.role_counts().values()) - sum(rows * columns for rows, columns in layers)
    return plain * BYTES[precision] + (lmm.settings.base.bytes_of(layers) if lmm.settings.base else 0)


def dequantized_bytes(lmm: LMM, precision: str) -> int:
    """What computing over quantised layers takes besides: one of them at a time in `precision`."""
    layers = [rows * columns for shapes in quantized_shapes(lmm).values() for rows, columns in shapes]
    return max(layers, default=0) * BYTES[precision]


def check_quantized(recipe: Recipe, lmm: LMM) -> None:
    """Raises UserError where `recipe` changes weights that are quantised in `lmm`."""
    base, shapes = lmm.settings.base, quantized_shapes(lmm)
    if base is None:
        return
    if not shapes:
        raise UserError(
            f"base.layers: {lmm.name} has no linear layer under {', '.join(base.layers)} that could be quantised; allowed: role "
            f"selectors of linear layers, such as llm.blocks (`lmmcl show model {lmm.name}` lists the roles)"
        )
    roles = {role: role for role in lmm.role_counts()}
    if both := shapes.keys() & select(roles, recipe.train, model=lmm.name):
        raise UserError(
            f"trains {', '.join(summary(both))}, but these weights are quantised ({base.describe()}) and cannot change. Use a LoRA "
            "recipe on them (qlora, lora, lora_attention, lora_all, kappatune), or remove `base`"
        )
    if recipe.adapter is None or not shapes.keys() & select(roles, recipe.adapter.targets, model=lmm.name):
        return
    if not isinstance(recipe.adapter, LoRA):
        raise UserError(
            f"{recipe.adapter.kind} needs unquantised weights, but `base` holds them in 4 bits ({base.describe()}). Use a LoRA "
            "recipe (qlora, lora, lora_attention, lora_all, kappatune), or remove `base`"
        )
    if recipe.adapter.dora:
        raise UserError(
            f"dora rescales the rows of the weights, which cannot change while they are quantised ({base.describe()}). Remove dora "
            "(rslora works), or remove `base`"
        )


def check_stage_quantized(settings: StageSettings, lmm: LMM, evaluated_in: str, place: str) -> None:
    """Raises UserError, with its place, where a stage or its evaluation does what quantised weights do not allow.

    `place` is that of the grid.
    """
    base = lmm.settings.base
    if base is None:
        return
    for where, precision in (
        (settings.place("precision", "training.precision"), settings.training.precision),
        ("evaluation.precision", evaluated_in),
    ):
        if precision == "fp16":
            raise UserError(
                "fp16 cannot hold the range of nf4 weights, which are quantised from bf16; allowed with `base`: bf16, fp32",
                place=where,
            )
    for merge in settings.mitigation.merges if settings.mitigation else ():
        raise UserError(
            f"{merge.name} merges weights, and those of {lmm.name} are quantised ({base.describe()}): the result could not be held "
            "in 4 bits. Remove `base`, or use a mitigation that acts during training, such as lwf. To merge anyway, `lmmcl export` "
            "the checkpoint, which dequantises it, and name its folder as the model of another sweep",
            place=settings.place("mitigation", f"{place}.mitigation"),
        )


def check_quantized_strategy(lmm: LMM, strategy: str) -> None:
    """Raises UserError where a strategy would divide or cast quantised weights."""
    if lmm.settings.base is not None and strategy not in WHOLE:
        raise UserError(
            f"{lmm.name} is quantised ({lmm.settings.base.describe()}), and {strategy} divides or casts weights as if they "
            "were numbers, which 4-bit codes are not; allowed: ddp (each worker holds the quantised model)",
            place="training.strategy",
        )


def check_quantized_engine(lmm: LMM, engine: str) -> None:
    """Raises UserError where another engine than transformers would answer with other weights than were trained on."""
    if lmm.settings.base is not None and engine != "transformers":
        raise UserError(
            f"{lmm.name} is quantised ({lmm.settings.base.describe()}), and {engine} would answer with dequantised weights; use "
            "`engine: transformers`",
            place="evaluation.engine",
        )
