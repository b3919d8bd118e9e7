"""Class names and images as CLIP vectors, which wrong options are chosen by. Needed while data is prepared only.

`Encoder` is all that the choice of options asks for, so that tests, and models of other makers, can stand in for CLIP.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lmmcl.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

MODEL = "openai/clip-vit-large-patch14"
REVISION = "main"
BATCH = 256
"""Texts, or images, that are encoded at once."""

Vectors = NDArray[np.floating]


class Encoder(Protocol):
    """Texts and images in one space: the similarity of two is the inner product of their vectors, which have length 1."""

    @property
    def identity(self) -> str:
        """What decides the vectors: what was computed by another encoder is computed again."""

    def texts(self, texts: Sequence[str]) -> Vectors:
        """One row for each text: (texts, width), of length 1."""

    def images(self, images: Sequence[Image]) -> Vectors:
        """One row for each RGB image: (images, width), of length 1."""


@dataclass(frozen=True)
class Clip:
    """CLIP of transformers, on a GPU where there is one; loaded when something is first encoded."""

    model: str = MODEL
    revision: str = REVISION

    @property
    def identity(self) -> str:
        """The model with its revision, as caches name it."""
        return f"{self.model}@{self.revision}"

    @cached_property
    def _parts(self) -> tuple[Any, Any, Any]:
        """The model, its tokenizer and its image processor; raises UserError where they cannot be had."""
        import torch
        from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

        device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            model: Any = CLIPModel.from_pretrained(self.model, revision=self.revision)
            tokenizer = AutoTokenizer.from_pretrained(self.model, revision=self.revision)
            images = CLIPImageProcessorPil.from_pretrained(self.model, revision=self.revision)
        except OSError as error:
            why = str(error).splitlines()[0]
            raise UserError(f"CLIP cannot be loaded; fetch it with `hf download {self.model}`: {why}") from error
        return model.to(device).eval(), tokenizer, images

    def texts(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors of texts: (texts, width)."""
        model, tokenizer, _ = self._parts

        def encode(batch: Sequence[str]) -> Tensor:
            tokens = tokenizer(list(batch), padding=True, truncation=True, return_tensors="pt").to(model.device)
            return model.text_projection(model.text_model(**tokens).pooler_output)

        return _unit([encode(batch) for batch in _batches(texts)])

    def images(self, images: Sequence[Image]) -> Vectors:
        """Unit vectors of images: (images, width)."""
        model, _, processor = self._parts

        def encode(batch: Sequence[Image]) -> Tensor:
            pixels = processor(list(batch), return_tensors="pt")["pixel_values"].to(model.device)
            return model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)

        return _unit([encode(batch) for batch in _batches(images)])


def _batches(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def _unit(batches: Sequence[Tensor]) -> Vectors:
    """Rows of length 1 on the CPU."""
    import torch

    return torch.nn.functional.normalize(torch.cat(list(batches)).detach().float(), dim=-1).cpu().numpy()
