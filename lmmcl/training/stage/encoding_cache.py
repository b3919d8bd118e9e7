"""Encoded examples on this node's disk, by what they are made of: other trials, stages and loader processes read them back.

Decoding and cutting up a large photograph takes longer than a GPU needs to learn from it. A file is named by the model with its
processor, the skill with its data, the row and the versions of the code that encodes; nothing of the machine or the trial
is in it. The folder is bounded: when it is full, or its disk is, what is not there is encoded each time.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

log = logging.getLogger("lmmcl")

Encoded = dict[str, Tensor]
GB = 10**9
PART = ".part"
VERSION = 3
"""Raised when `encode` gives other tensors for the same example."""


class DiskCache:
    """Encodings below `folder`, at most `gigabytes` of them; `writers` processes share what is left of that."""

    def __init__(self, folder: Path, gigabytes: float, writers: int = 1) -> None:
        self.folder, self.limit, self.writers = folder, int(gigabytes * GB), max(1, writers)
        self._room: int | None = None

    def get(self, key: str, row: int, make: Callable[[], Encoded]) -> Encoded:
        """The encoding of a row of what `key` names; made, and kept where there is room, when it is not there or damaged."""
        path = self.folder / _digest(key) / f"{row}.safetensors"
        try:
            return load_file(path)
        except (FileNotFoundError, SafetensorError):
            encoded = make()
            self._keep(path, encoded)
            return encoded

    def _keep(self, path: Path, encoded: Encoded) -> None:
        if self._room is None:  # when this process first has something to keep
            self._room = (self.limit - size_of(self.folder)) // self.writers
        size = sum(tensor.nbytes for tensor in encoded.values())
        if size > self._room:
            return
        part: Path | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, suffix=PART)
            os.close(handle)
            part = Path(name)
            save_file({name: tensor.contiguous() for name, tensor in encoded.items()}, part)
            part.replace(path)  # at once: another process may be about to read it
        except (OSError, SafetensorError) as error:  # a disk that is full, most often: a stage needs none of this
            self._room = 0
            log.warning("encoded examples are no longer cached in %s: %s", self.folder, error)
            if part is not None:
                part.unlink(missing_ok=True)
            return
        self._room -= size


@cache
def _digest(key: str) -> str:
    code = f"{VERSION} {version('transformers')}"
    return hashlib.sha256(f"{code}\0{key}".encode()).hexdigest()[:24]


def size_of(folder: Path) -> int:
    """Bytes of all encodings below a folder, those included that are (or were, by a killed process) half written."""
    size = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # renamed meanwhile
            size += path.stat().st_size if path.suffix in (".safetensors", PART) else 0
    return size
