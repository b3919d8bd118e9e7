"""What the first phase of pre-training learns, and the second keeps: patches that lie near the words for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lmmcl.maintenance.tiny_batches import TagTargets, patch_pixels, pixels
from lmmcl.models.tiny.tiny_processor import PATCH_SIZE

if TYPE_CHECKING:
    from torch import Tensor

    from lmmcl.tasks.synthetic.draw import Scene


class Grounding:
    """What ties vision features to words and pixels: of each patch, its words point where the features point, and a
    linear map of the features gives the pixels back (so that what no tag names, as the angle of a hand, stays visible).
    """

    def __init__(self, model: Any, scenes: Sequence[Scene]) -> None:
        import torch

        self.model, self.targets = model, TagTargets(scenes)
        width = model.config.text_config.hidden_size
        self.scale = torch.nn.Parameter(torch.tensor(2.5))
        self.offset = torch.nn.Parameter(torch.full((len(self.targets.columns),), -3.0))
        self.decoder = torch.nn.Linear(width, 3 * PATCH_SIZE**2)
        self.named = [("scale", self.scale), ("offset", self.offset), *self.decoder.named_parameters()]

    def features(self, images: Tensor) -> Tensor:
        """What the language model gets to see of each patch: (pictures, patches, width)."""
        seen = self.model.model.vision_tower(images, output_hidden_states=True).hidden_states[-1]
        return self.model.model.multi_modal_projector(seen)

    def loss(self, scenes: Sequence[Scene]) -> Tensor:
        """Ten times the binary cross-entropy per patch and word, plus the mean squared error of pixels in [-1, 1]."""
        from torch.nn import functional

        images = pixels(scenes)
        seen = functional.normalize(self.features(images), dim=-1)
        words = functional.normalize(self.model.get_input_embeddings().weight[self.targets.token_ids], dim=-1)
        scores = seen @ words.T * self.scale.exp() + self.offset
        tags = functional.binary_cross_entropy_with_logits(scores, self.targets(scenes))
        drawn = functional.mse_loss(self.decoder(seen * math.sqrt(seen.shape[-1])), patch_pixels(images))
        return 10 * tags + drawn

    def level(self, scenes: Sequence[Scene], length: float = 1.0) -> None:
        """Gives words and features one mean length (only directions were learnt); projector and embeddings change."""
        import torch

        with torch.no_grad():
            embeddings = self.model.get_input_embeddings().weight
            embeddings *= length / embeddings[self.targets.token_ids].norm(dim=-1).mean()
            factor = length / self.features(pixels(scenes)).norm(dim=-1).mean()
            last = self.model.model.multi_modal_projector.linear_2
            last.weight *= factor
            last.bias *= factor
