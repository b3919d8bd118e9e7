"""What happens in a local store, as the kernel tells it (inotify): which steps were begun and which were recorded.

Polling would miss a folder that is there for milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

CREATED, MOVED_AWAY, LOST, FOLDER = 0x100, 0x40, 0x4000, 0x40000000
EVENT = struct.Struct("iIII")


@dataclass
class StoreWatch:
    """Follows a store from `start` to `stop`; `events` holds (start | record, step key)."""

    store: Path
    events: list[tuple[str, str]] = field(default_factory=list)
    lost: bool = False

    def start(self) -> StoreWatch:
        libc = ctypes.CDLL(None, use_errno=True)
        self._inotify = libc.inotify_init1(os.O_NONBLOCK)
        folder = self.store / ".partial"
        folder.mkdir(parents=True, exist_ok=True)
        assert libc.inotify_add_watch(self._inotify, str(folder).encode(), CREATED | MOVED_AWAY) >= 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        time.sleep(0.2)
        self._ended.set()
        self._thread.join()
        os.close(self._inotify)
        assert not self.lost, "the kernel told of more than was read"

    def _follow(self) -> None:
        while not self._ended.is_set():
            try:
                read = os.read(self._inotify, 65536)
            except BlockingIOError:
                time.sleep(0.02)
                continue
            at = 0
            while at < len(read):
                _, mask, _, length = EVENT.unpack_from(read, at)
                name = read[at + EVENT.size : at + EVENT.size + length].split(b"\0")[0].decode()
                at += EVENT.size + length
                self.lost |= bool(mask & LOST)
                if mask & FOLDER and not name.endswith("-replaced"):
                    self.events.append(("start" if mask & CREATED else "record", name.split("-")[0]))

    def starts(self) -> dict[str, int]:
        """How often each step was begun."""
        keys = [key for what, key in self.events if what == "start"]
        return {key: keys.count(key) for key in keys}

    def begun_again(self) -> int:
        """How often a step was begun that had been begun before."""
        return sum(times - 1 for times in self.starts().values())

    def repeated(self) -> list[str]:
        """Keys of the steps that were recorded, and begun again nevertheless."""
        recorded: set[str] = set()
        found = []
        for what, key in self.events:
            if what == "record":
                recorded.add(key)
            elif key in recorded:
                found.append(key)
        return found
