"""Where features of images lie: in memory those that were needed last, on this node's disk all, as long as there is room."""

from __future__ import annotations

import atexit
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lmmcl.weights.image_features.feature_packs import FeaturePacks

if TYPE_CHECKING:
    from torch import Tensor

MEMORY_BYTES = 256 * 2**20


class FeatureStore:
    """Features below `folder`, at most `gigabytes` of them; the last ones in memory, too. When the folder is full, or its disk
    is, what is not there is worked out each time."""

    def __init__(self, folder: Path, gigabytes: float, writers: int = 1) -> None:
        self._packs = FeaturePacks(folder, gigabytes, writers)
        self._recent: OrderedDict[str, Tensor] = OrderedDict()
        self._bytes = 0

    def read(self, key: str) -> Tensor | None:
        """What was kept as `key`, on the CPU, or None. Nobody may write into it."""
        if key in self._recent:
            self._recent.move_to_end(key)
            return self._recent[key]
        if (features := self._packs.read(key)) is not None:
            self._remember(key, features)
        return features

    def keep(self, key: str, features: Tensor) -> None:
        """Keep `features` of any device, where there is room."""
        own = features.detach().to("cpu", copy=True).contiguous()
        self._remember(key, own)
        self._packs.keep(key, own)

    def write(self) -> None:
        """Let other processes have what is new, now."""
        self._packs.write()

    def _remember(self, key: str, features: Tensor) -> None:
        if features.nbytes > MEMORY_BYTES:
            return
        self._recent[key] = features
        self._bytes += features.nbytes
        while self._bytes > MEMORY_BYTES:
            _, dropped = self._recent.popitem(last=False)
            self._bytes -= dropped.nbytes


_STORES: dict[tuple[str, float], FeatureStore] = {}


def feature_store(folder: str, gigabytes: float, writers: int = 1) -> FeatureStore:
    """The store in a folder: one a process, which remembers what it read last."""
    path = Path(folder).expanduser()
    return _STORES.setdefault((str(path), gigabytes), FeatureStore(path, gigabytes, writers))


@contextmanager
def features_written() -> Iterator[None]:
    """After the `with`, and when the process ends, other processes have what this one worked out."""
    try:
        yield
    finally:
        _write_all()


@atexit.register
def _write_all() -> None:
    for store in _STORES.values():
        store.write()
