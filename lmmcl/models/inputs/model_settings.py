"""Settings of a model in a sweep: how its dialogues and images are given to it, in training, evaluation and probes alike,
and whether its weights are quantised.

A study's authors often leave a model's own ways: another system turn, a limit of pixels, images padded to a square. What is set
enters the model's identity, and so every key; a model without settings is the model as it comes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lmmcl.errors import UserError
from lmmcl.models.architecture import Architecture
from lmmcl.models.quantized.base_settings import BaseSettings

MARK = "+"
"""Between a model's name and its settings in a reference: `llava-1.5-7b+{"square":true}`."""
NEWLINE = "image_newline"
TILED = "llava_next"
OF_ANY_SIZE = ("qwen2_5_vl", "qwen3_vl")
"""Families that read an image in as many tokens as it has patches."""
PHOTOGRAPH = 1024 * 768
"""Pixels of the photograph for which an architecture's tokens are listed."""


class ModelSettings(BaseModel):
    """Nothing set: the model as it comes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: str | None = Field(
        default=None, min_length=1, description="text of a system turn before every dialogue that has none of its own"
    )
    max_pixels: int | None = Field(
        default=None,
        ge=1024,
        description="larger images are scaled down to this number of pixels, in their shape, before the processor sees them",
    )
    square: bool = Field(
        default=False,
        description="images are padded to a square with the mean colour of the processor, as LLaVA-1.5's `pad`",
    )
    tiles: Literal["anyres_max_9"] | None = Field(
        default=None,
        description="LLaVA-NeXT: grids of up to 6 × 6 tiles (36 shapes), features of more than 9 tiles scaled down; default the "
        "checkpoint's five shapes of up to 4",
    )
    image_newline: Literal["llm"] | None = Field(
        default=None,
        description="LLaVA-NeXT and LLaVA-OneVision: the vector that ends a row of patches has the role `llm.image_newline`, so "
        "it trains with the language model; default `vision.other`",
    )
    base: BaseSettings | None = Field(
        default=None,
        description="`{quantize: nf4}`: linear layers in 4 bits, on which LoRA trains, see [QLoRA](recipes.md#qlora)",
    )

    def identity(self) -> dict[str, Any]:
        """What is set."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def describe(self) -> str:
        """`max_pixels 262144 · square`."""
        set_values = {**self.identity(), **({"base": self.base.describe()} if self.base else {})}.items()
        return " · ".join(name if value is True else f"{name} {value}" for name, value in set_values)

    def __bool__(self) -> bool:
        return bool(self.identity())

    def check(self, family: str) -> None:
        """Raise UserError for what a model of `family` does not have."""
        if self.tiles and family != TILED:
            raise UserError(f"tiles: only LLaVA-NeXT (llava_next) takes another number of tiles; this is {family}")
        if self.image_newline and family not in (TILED, "llava_onevision"):
            raise UserError(f"{NEWLINE}: only LLaVA-NeXT and LLaVA-OneVision have such a vector; this is {family}")

    def roles(self, roles: dict[str, str]) -> dict[str, str]:
        """Roles by parameter name, with the newline vector where it is to be."""
        if self.image_newline is None:
            return roles
        return {name: f"llm.{NEWLINE}" if name.endswith(NEWLINE) else role for name, role in roles.items()}

    def counts(self, counts: dict[str, int], width: int) -> dict[str, int]:
        """Parameters by role of a model of hidden size `width`, with the newline vector where it is to be."""
        if self.image_newline is None:
            return counts
        others = {**counts, "vision.other": counts["vision.other"] - width}
        return {**{role: count for role, count in others.items() if count}, f"llm.{NEWLINE}": width}

    def seen_by(self, architecture: Architecture) -> Architecture:
        """The architecture with the tokens of a photograph under these settings: what memory and hours are estimated with."""
        if self.tiles:
            images = "576 tokens for the whole picture, and tiles of 336 pixels (anyres_max_9 with 36 grids)"
            return replace(architecture, images=images, tokens=5784, patches=13 * 577)
        if self.max_pixels and self.max_pixels < PHOTOGRAPH and architecture.name in OF_ANY_SIZE:
            share = self.max_pixels / PHOTOGRAPH
            patches = architecture.patches and round(share * architecture.patches)
            return replace(architecture, tokens=round(share * architecture.tokens), patches=patches)
        return architecture


AS_IT_COMES = ModelSettings()


def text_width(config: Mapping[str, Any]) -> int:
    """The hidden size of the language model of a configuration."""
    return int(config.get("text_config", config)["hidden_size"])
