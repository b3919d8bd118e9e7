"""`base: {quantize: nf4}`: pre-trained weights in 4 bits, on which LoRA trains (QLoRA, arXiv 2305.14314). As data, without torch.

It is a setting of a model (`models:` of a sweep, for all of its trials) or of a recipe (for the trials of that recipe), and means
the same in both places: it becomes a part of the model's identity, so that stage 0 is the quantised model too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lmmcl.errors import UserError, shown, unknown, unknown_key

BLOCK, OUTER_BLOCK = 64, 256
"""Weights that share a scale, and scales that share one where they are quantised themselves."""
FORMATS = ("nf4",)
PACKAGE = "bitsandbytes"


class BaseSettings(BaseModel):
    """Hold the pre-trained weights in 4 bits: {quantize: nf4}"""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quantize: Literal["nf4"] = Field(description="4-bit NormalFloat, in blocks of 64 weights, of the weights in bf16")
    double_quant: bool = Field(
        default=True, description="quantise the scales of the blocks too: 4.13 instead of 4.5 bits a weight"
    )
    layers: tuple[str, ...] = Field(
        default=("llm.blocks",),
        min_length=1,
        description="role selectors; quantised are the linear layers under them, but never the head",
    )

    @model_validator(mode="before")
    @classmethod
    def _mapping(cls, data: Any) -> Any:
        if not isinstance(data, Mapping | cls):
            raise ValueError(f"expected a mapping such as {{quantize: nf4}}, not {shown(data)}")
        if isinstance(data, Mapping):
            for key in data:
                if key not in cls.model_fields:
                    raise ValueError(unknown_key("key", key, cls.model_fields))
            if data.get("quantize", "nf4") not in FORMATS:
                raise ValueError(f"quantize: {unknown('value', str(data['quantize']), FORMATS)}")
        return data

    @field_validator("layers")
    @classmethod
    def _canonical(cls, selectors: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(selectors)))

    def identity(self) -> dict[str, Any]:
        """What enters a key, and what a settings file would hold: `quantize`, and what is not as by default."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def describe(self) -> str:
        """`nf4`, or `nf4 double_quant False`."""
        own = self.identity()
        words = {name: " + ".join(value) if isinstance(value, list) else value for name, value in own.items()}
        return " ".join([words.pop("quantize"), *(f"{name} {value}" for name, value in words.items())])

    def layer_bytes(self, shape: tuple[int, int]) -> int:
        """What a quantised layer of `shape` takes: two weights a byte, and the scales."""
        weights = shape[0] * shape[1]
        blocks = math.ceil(weights / BLOCK)
        scales = blocks + 4 * math.ceil(blocks / OUTER_BLOCK) + 4 if self.double_quant else 4 * blocks
        return math.ceil(weights / 2) + scales

    def bytes_of(self, shapes: Iterable[tuple[int, int]]) -> int:
        """What layers of these shapes take."""
        return sum(self.layer_bytes(shape) for shape in shapes)


def check_package(what: str, place: str | None = None) -> None:
    """Raises UserError unless bitsandbytes, which `what` needs, is installed."""
    if find_spec(PACKAGE) is None:
        raise UserError(
            f'{what} needs the package {PACKAGE}, which is not installed: pip install "lmmcl[{PACKAGE}]"', place=place
        )
