"""How much of what a stage computed on was padding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


class PaddingCount:
    """Places of a stage's batches, in all and those that hold a token; counted on the device, which is not waited for."""

    def __init__(self) -> None:
        self._places = 0
        self._tokens: int | Tensor = 0

    def add(self, batch: Mapping[str, Tensor]) -> None:
        """Count a batch; one without an attention mask is packed and has no padding."""
        mask = batch.get("attention_mask")
        ids = batch["input_ids"]
        self._places += ids.numel()
        self._tokens = self._tokens + (ids.numel() if mask is None else (mask != 0).sum())

    def share(self, total: Callable[[Tensor], Any], device: torch.device) -> float:
        """Padding as a share of all places, over all workers: `total` sums a tensor over them."""
        counts = torch.tensor([float(self._places), float(self._tokens)], dtype=torch.float64)
        places, tokens = total(counts.to(device, torch.float32 if device.type == "mps" else torch.float64)).tolist()
        return 1 - tokens / places if places else 0.0
