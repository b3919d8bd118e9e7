"""LoRA adapters as checkpoints hold them: PEFT's files, and their merge into a weight, the same bits on every machine.

A stage of LoRA stores its adapter and no merged weight, so whoever loads the checkpoint merges again. A matrix product in
floating point depends on the machine: threads, instruction set and GPU decide in which order it is summed. Here the factors
are rounded to whole numbers of a common scale for each row of B and each column of A, small enough that all sums are exact in
fp64; then the order does not matter. Everything else is elementwise, or summed in a fixed order.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = "adapter"
"""Of a checkpoint: PEFT's files of the adapter that its stage trained."""
ADAPTER_WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
PEFT_PREFIX = "base_model.model."
LORA_A, LORA_B, MAGNITUDE = ".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector"
_EXACT_BITS = 53
"""Whole numbers below 2**53 are exact in fp64."""
_BLOCK = 2**22
"""Entries of a weight that are merged at a time: what the merge needs besides is some copies of these in fp64."""


@dataclass(frozen=True)
class LayerAdapter:
    """What LoRA adds to one linear layer: s·B·A with A (rank × inputs) and B (outputs × rank); DoRA's norms, one an output."""

    a: Tensor
    b: Tensor
    scale: float
    magnitude: Tensor | None = None

    def merge(self, weight: Tensor) -> Tensor:
        """`weight` (outputs × inputs) with the adapter merged in: computed in fp32, as PEFT does, and rounded once to its dtype.

        The same inputs give the same bits on every machine and device.
        """
        import torch

        device = weight.device if weight.device.type in ("cpu", "cuda") else torch.device("cpu")  # others lack fp64
        merged = torch.empty_like(weight)
        a, b = self.a.to(device), self.b.to(device)
        magnitude = None if self.magnitude is None else self.magnitude.float().to(device)
        rows = max(1, _BLOCK // weight.shape[1])
        for start in range(0, weight.shape[0], rows):
            block = slice(start, start + rows)
            update = (exact_product(b[block], a) * self.scale).float()
            value = weight[block].to(device).float() + update
            if magnitude is not None:
                value = (magnitude[block] / _norms(value))[:, None] * value
            merged[block] = value.to(weight.dtype)
        return merged


def exact_product(b: Tensor, a: Tensor) -> Tensor:
    """B (outputs, rank) · A (rank, inputs) in fp64, bit for bit the same whatever computes it.

    Entries of B are rounded to whole multiples of a power of two for each row, those of A for each column: to about 22 bits at
    rank 256, and to 25, so that the largest are exact, at rank 8.
    """
    bits = (_EXACT_BITS - math.ceil(math.log2(a.shape[0]))) // 2
    left, of_row = _whole_numbers(b, dim=1, bits=bits)
    right, of_column = _whole_numbers(a, dim=0, bits=bits)
    return (left @ right) * of_row * of_column


def _whole_numbers(matrix: Tensor, *, dim: int, bits: int) -> tuple[Tensor, Tensor]:
    """`matrix` in fp64 as whole numbers of at most `bits` bits, and the powers of two that they are multiples of, along `dim`."""
    import torch

    wide = matrix.double()
    exponents = torch.frexp(wide.abs().amax(dim, keepdim=True))[1] - bits
    return (wide * _power_of_two(-exponents)).round(), _power_of_two(exponents)


def _power_of_two(exponents: Tensor) -> Tensor:
    """2**exponents in fp64, to the bit (`pow` need not be)."""
    import torch

    return ((exponents.long() + 1023) << 52).view(torch.float64)


def _norms(rows: Tensor) -> Tensor:
    """The Euclidean norm of each row, in the dtype of `rows`; summed in fp64 by halves, an order that no library chooses."""
    import torch

    squares = rows.double().square()
    while (columns := squares.shape[1]) > 1:
        half = columns // 2
        folded = squares[:, :half] + squares[:, half : 2 * half]
        squares = torch.cat([folded, squares[:, 2 * half :]], dim=1) if columns % 2 else folded
    return squares[:, 0].sqrt().to(rows.dtype)


def scale_of(config: Mapping[str, Any]) -> float:
    """The s of s·B·A that PEFT's configuration of an adapter says."""
    rank = config["r"]
    return float(config["lora_alpha"] / (math.sqrt(rank) if config["use_rslora"] else rank))


def write_adapter(folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> int:
    """Write an adapter as PEFT does, its tensors by their names in PEFT's files; returns their bytes."""
    from safetensors.torch import save_file

    folder.mkdir()
    save_file(dict(tensors), folder / ADAPTER_WEIGHTS)
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=1, default=str), encoding="utf-8")
    return (folder / ADAPTER_WEIGHTS).stat().st_size
