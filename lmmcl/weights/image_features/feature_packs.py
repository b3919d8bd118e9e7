"""Many small tensors in few files: a bounded folder of packs, to which processes of a node add and from which they read.

A picture's features may be 16 kB or 50 MB. A file for each would make a hundred thousand of them in one folder, which every
process lists when it starts, and on a shared disk each costs several round trips. So a process gathers what is new and writes it
as one file, under a name of its own, at once: nobody waits, and two that worked out the same picture write the same bits.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lmmcl.weights.fast_digest import fast_digest
from lmmcl.weights.tensor_folder import GB, PART, SUFFIX, size_of

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("lmmcl")

PACK_BYTES = 64 * 2**20
PACK_TENSORS = 256
"""Reading one tensor reads the names of all in its pack."""
PACK_SECONDS = 10.0
"""How long what is new may wait for more: other processes do not see it, and a killed one loses it."""
LIST_SECONDS = 1.0
"""How long the folder is taken to be as it was when it was last listed."""
ABANDONED_SECONDS = 3600.0
"""After which a file that is half written is one of a killed process."""
DIGESTS = "digests"


class FeaturePacks:
    """Tensors by key in packs in `folder`, at most `gigabytes` of them; `writers` processes write at the same time."""

    def __init__(self, folder: Path, gigabytes: float, writers: int) -> None:
        self.folder, self.limit, self.writers = folder, int(gigabytes * GB), max(1, writers)
        self._new: dict[str, Tensor] = {}
        self._new_bytes, self._since = 0, 0.0
        self._where: dict[str, Path] = {}
        self._known: set[Path] = set()
        self._listed = float("-inf")
        self.is_full = False

    def read(self, key: str) -> Tensor | None:
        """What was kept as `key`; None where it is not there, or damaged."""
        if key in self._new:
            return self._new[key]
        if key not in self._where:
            self._list()
        path = self._where.get(key)
        return _read(path, key) if path else None

    def keep(self, key: str, tensor: Tensor) -> None:
        """Keep a tensor (on the CPU, which nobody writes into), where there is room."""
        if self.is_full:
            return
        if not self._new:
            self._since = time.monotonic()
        self._new[key] = tensor
        self._new_bytes += tensor.nbytes
        waited = time.monotonic() - self._since
        if self._new_bytes >= PACK_BYTES or len(self._new) >= PACK_TENSORS or waited >= PACK_SECONDS:
            self.write()

    def write(self) -> None:
        """Write what is new."""
        new, size = self._new, self._new_bytes
        self._new, self._new_bytes = {}, 0
        if not new:
            return
        if size_of(self.folder) + size * self.writers > self.limit:  # the others may be about to write as much
            self.is_full = True
            log.info(
                "features of images are no longer kept in %s: it holds features_gb (%g)", self.folder, self.limit / GB
            )
            return
        path = self.folder / f"{uuid.uuid4().hex}{SUFFIX}"
        try:
            self._write(path, new)
        except OSError as error:  # a disk that is full, most often
            self.is_full = True
            log.warning("features of images are no longer kept in %s: %s", self.folder, error)

    def _write(self, path: Path, tensors: dict[str, Tensor]) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        part = path.with_suffix(PART)
        digests = json.dumps({key: fast_digest(tensor) for key, tensor in tensors.items()})
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, part, metadata={DIGESTS: digests})
            part.replace(path)  # at once: another process may be about to read it
        except SafetensorError as error:
            part.unlink(missing_ok=True)
            raise OSError(str(error)) from error
        except OSError:
            part.unlink(missing_ok=True)
            raise
        self._known.add(path)
        self._where |= dict.fromkeys(tensors, path)

    def _list(self) -> None:
        """Look for packs that others have written."""
        from safetensors import SafetensorError, safe_open

        if time.monotonic() - self._listed < LIST_SECONDS:
            return
        self._listed = time.monotonic()
        _remove_abandoned(self.folder)
        for path in set(self.folder.glob(f"*{SUFFIX}")) - self._known:
            self._known.add(path)
            with suppress(FileNotFoundError, SafetensorError), safe_open(path, "pt") as file:
                self._where |= {key: path for key in file.keys() if key not in self._where}  # noqa: SIM118


def _read(path: Path, key: str) -> Tensor | None:
    """A tensor of a pack; None where it is gone or not what was written."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            tensor: Tensor = file.get_tensor(key).clone()  # of its own, not a page of the file
            digest = json.loads((file.metadata() or {}).get(DIGESTS, "{}")).get(key)
    except (OSError, SafetensorError):
        return None
    return tensor if digest == fast_digest(tensor) else None


def _remove_abandoned(folder: Path) -> None:
    for part in folder.glob(f"*{PART}"):
        with suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > ABANDONED_SECONDS:
                part.unlink()
