"""Digests of tensors that show whether anything wrote into them, at the speed of memory: XXH3 with 128 bits.

SHA-256 says what a model *is*, to whoever reads a file years later (`lmmcl.weights.delta.digest_tensor`). Whether the weights of a
process are still those that it read needs no protection against an attacker, and is asked at the end of every stage. Where only
the core packages are installed, without `xxhash`, SHA-256 answers that too: as surely, and more slowly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def fast_digest(tensor: Tensor) -> str:
    """XXH3 (128 bits, in hex) of a tensor's bytes, with its dtype and shape."""
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return f"{tensor.dtype}{tuple(tensor.shape)}:{_algorithm()(flat.view(torch.uint8).numpy().data)}"


def _algorithm() -> Callable[[memoryview], str]:
    try:
        from xxhash import xxh3_128_hexdigest
    except ImportError:
        return lambda content: hashlib.sha256(content).hexdigest()
    return xxh3_128_hexdigest


def fast_digests(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """`fast_digest` of each."""
    with ThreadPoolExecutor(4) as pool:  # hashing releases the interpreter lock
        return dict(zip(tensors, pool.map(fast_digest, tensors.values()), strict=True))
