"""An object store in memory that counts its requests, for tests of how few are made."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, ClassVar

from fsspec import register_implementation
from fsspec.implementations.memory import MemoryFileSystem

from lmmcl.ledger import Ledger


class Counted(MemoryFileSystem):
    """An object store in memory that counts requests; a listing is one for each thousand names, as of S3."""

    protocol = "counted"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    requests: ClassVar[list[str]] = []
    bytes_read: ClassVar[list[int]] = []
    together: ClassVar[list[int]] = [0, 0]
    lock = threading.Lock()
    delay = 0.0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.removeprefix("counted://")))

    def _count(self, what: str) -> None:
        with self.lock:
            self.requests.append(what)
            self.together[0] += 1
            self.together[1] = max(self.together)
        time.sleep(self.delay)
        with self.lock:
            self.together[0] -= 1

    def cat_file(self, path: str, *args: Any, **kwargs: Any) -> bytes:
        self._count(f"read {path}")
        content: bytes = super().cat_file(path, *args, **kwargs)
        self.bytes_read.append(len(content))
        return content

    def exists(self, path: str, **kwargs: Any) -> bool:
        self._count(f"exists {path}")
        return bool(super().exists(path, **kwargs))

    def info(self, path: str, **kwargs: Any) -> Any:
        self._count(f"info {path}")
        return super().info(path, **kwargs)

    def find(self, path: str, *args: Any, **kwargs: Any) -> Any:
        found = super().find(path, *args, **kwargs)
        for _ in range(1 + len(found) // 1000):
            self._count(f"list {path}")
        return found

    @classmethod
    def forget(cls) -> None:
        """Count from here."""
        cls.requests.clear()
        cls.bytes_read.clear()
        cls.together[:] = [0, 0]


register_implementation("counted", Counted, clobber=True)


def counted_copy(folder: Path) -> Ledger:
    """A counted store that holds what a folder holds, and nothing else."""
    Counted.store.clear()
    for file in folder.rglob("*"):
        if file.is_file():
            Counted().pipe_file(f"/bucket/{file.relative_to(folder)}", file.read_bytes())
    Counted.forget()
    return Ledger("counted:///bucket")
