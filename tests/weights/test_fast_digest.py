"""Fast digests: other for every bit, shape and dtype; the same wherever and however the tensor lies."""

from __future__ import annotations

import hashlib
import sys

import pytest
import torch

from lmmcl.weights.fast_digest import fast_digest, fast_digests


def test_every_flipped_bit_is_another_digest() -> None:
    tensor = torch.arange(600, dtype=torch.uint8)  # longer than what XXH3 takes at once
    digests = {fast_digest(tensor)}
    for byte in range(len(tensor)):
        flipped = tensor.clone()
        flipped[byte] ^= 1 << byte % 8
        digests.add(fast_digest(flipped))
    assert len(digests) == 601


def test_the_same_bytes_in_another_shape_or_dtype_are_another_digest() -> None:
    tensor = torch.arange(12, dtype=torch.float32)
    others = [tensor, tensor.view(3, 4), tensor.view(4, 3), tensor.view(torch.int32), tensor.view(torch.bfloat16)]
    assert len({fast_digest(other) for other in others}) == len(others)


def test_equal_tensors_have_equal_digests_however_they_lie() -> None:
    tensor = torch.randn(4, 6)
    digests = fast_digests(
        {"transposed": tensor.t().contiguous().t(), "scalar": torch.tensor(2.0), "none": torch.zeros(0, 3)}
    )
    assert digests["transposed"] == fast_digest(tensor.clone())
    assert digests["scalar"] == fast_digest(torch.tensor(2.0)) and digests["none"] != fast_digest(torch.zeros(3, 0))


def test_the_digest_is_that_of_every_release_of_the_library() -> None:
    """Features of images that another build of the environment kept are found by it."""
    assert fast_digest(torch.arange(5, dtype=torch.int64)) == "torch.int64(5,):8f77a1419c642a047040c80acf53e904"


def test_without_the_library_sha256_shows_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = torch.arange(5)
    with_library = fast_digest(tensor)
    monkeypatch.setitem(sys.modules, "xxhash", None)
    digest = fast_digest(tensor)
    assert digest.endswith(hashlib.sha256(tensor.numpy().tobytes()).hexdigest()) and digest != with_library
    assert fast_digest(tensor + 1) != digest == fast_digest(tensor.clone())
