"""Encoded examples on this node's disk, by what they are made of: other trials, stages and loader processes read them back.

Decoding and cutting up a large photograph takes longer than a GPU needs to learn from it. A file is named by the model with its
processor, the skill with its data, the row and the versions of the code that encodes; nothing of the machine or the trial
is in it. The folder is bounded: when it is full, or its disk is, what is not there is encoded each time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path

from torch import Tensor

from lmmcl.weights.tensor_folder import TensorFolder

Encoded = dict[str, Tensor]
VERSION = 3
"""Raised when `encode` gives other tensors for the same example."""


class DiskCache:
    """Encodings below `folder`, at most `gigabytes` of them; `writers` processes share what is left of that."""

    def __init__(self, folder: Path, gigabytes: float, writers: int = 1) -> None:
        self._files = TensorFolder(folder, gigabytes, writers, what="encoded examples")

    def get(self, key: str, row: int, make: Callable[[], Encoded]) -> Encoded:
        """The encoding of a row of what `key` names; made, and kept where there is room, when it is not there or damaged."""
        name = f"{_digest(key)}/{row}"
        if (encoded := self._files.read(name)) is None:
            encoded = make()
            self._files.keep(name, encoded)
        return encoded


@cache
def _digest(key: str) -> str:
    code = f"{VERSION} {version('transformers')}"
    return hashlib.sha256(f"{code}\0{key}".encode()).hexdigest()[:24]
