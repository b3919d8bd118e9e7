"""A bounded folder of tensors on this node's disk, which processes share: what is not there is worked out again.

When the folder is full, or its disk is, nothing more is kept; nobody needs what lies there.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("lmmcl")

GB = 10**9
SUFFIX, PART = ".safetensors", ".part"


class TensorFolder:
    """Files below `folder`, at most `gigabytes` of them; `writers` processes share what is left of that. `what` they hold is
    said where keeping ends."""

    def __init__(self, folder: Path, gigabytes: float, writers: int, *, what: str) -> None:
        self.folder, self.limit, self.writers, self.what = folder, int(gigabytes * GB), max(1, writers), what
        self._room: int | None = None

    def read(self, name: str) -> dict[str, Tensor] | None:
        """What was kept as `name` (a path below the folder); None where it is not there, or damaged."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(self._path(name))
        except (FileNotFoundError, SafetensorError):
            return None

    def keep(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep tensors of any device as `name`, where there is room."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        if self._room is None:  # when this process first has something to keep
            self._room = (self.limit - size_of(self.folder)) // self.writers
        size = sum(tensor.nbytes for tensor in tensors.values())
        if size > self._room:
            return
        path, part = self._path(name), None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=PART)
            os.close(handle)
            part = Path(temporary)
            save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, part)
            part.replace(path)  # at once: another process may be about to read it
        except (OSError, SafetensorError) as error:  # a disk that is full, most often
            self._room = 0
            log.warning("%s are no longer kept in %s: %s", self.what, self.folder, error)
            if part is not None:
                part.unlink(missing_ok=True)
            return
        self._room -= size

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{SUFFIX}"


def size_of(folder: Path) -> int:
    """Bytes of all tensors below a folder, those included that are (or were, by a killed process) half written."""
    size = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # renamed meanwhile
            size += path.stat().st_size if path.suffix in (SUFFIX, PART) else 0
    return size
