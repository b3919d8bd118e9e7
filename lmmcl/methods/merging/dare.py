"""DARE: drop most of a task vector at random and rescale the rest (Yu et al. 2024, "Language Models are Super Mario")."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from lmmcl.methods.merging.task_vectors import moved_by, summed, task_vector
from lmmcl.methods.mitigation import MergeMitigation

if TYPE_CHECKING:
    from torch import Tensor


def kept_at_random(shape: Sequence[int], drop: float, seed: int, skill: int, name: str) -> Tensor:
    """A mask of `shape`, true with probability 1 − `drop`, decided by the arguments alone: not by what was drawn before."""
    import numpy as np
    import torch

    digest = hashlib.sha256(f"{seed}/{skill}/{name}".encode()).digest()
    random = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))
    return torch.from_numpy(random.random(tuple(shape), dtype=np.float32) >= drop)


def dare(anchor: Tensor, tuned: Sequence[Tensor], masks: Sequence[Tensor], drop: float, scale: float) -> Tensor:
    """θ0 + λ·Σ m_t·τ_t / (1 − p): the expectation is that of task arithmetic; entries that are dropped keep θ0's bits.

    All tensors and masks have the shape of `anchor`."""
    kept = [task_vector(anchor, value) * mask for value, mask in zip(tuned, masks, strict=True)]
    return moved_by(anchor, scale / (1 - drop) * summed(kept))


class Dare(MergeMitigation[None]):
    """`drop` is p, `scale` λ (1 for a single skill; of several, the sum of their task vectors is scaled)."""

    name = "dare"
    version = 1

    drop: float = Field(default=0.9, ge=0, lt=1, description="p, the share of entries that are dropped")
    scale: float = Field(default=1.0, gt=0, description="λ")
    seed: int = Field(default=0, ge=0, description="of the draw")
    continues_from: Literal["merged", "tuned", "base"] = "base"

    def merge(self, state: None, name: str, anchor: Tensor, tuned: Sequence[Tensor]) -> Tensor:
        masks = [kept_at_random(anchor.shape, self.drop, self.seed, skill, name) for skill in range(len(tuned))]
        return dare(anchor, tuned, masks, self.drop, self.scale)


MITIGATIONS = (Dare,)
