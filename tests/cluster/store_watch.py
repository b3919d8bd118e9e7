"""What happens in a local store, as the kernel tells it (inotify): which steps were started and recorded, which checkpoints saved.

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

CREATED, MOVED_AWAY, FOLDER = 0x100, 0x40, 0x40000000
EVENT = struct.Struct("iIII")


@dataclass
class StoreWatch:
    """Follows a store from `start` to `stop`; `events` holds (start | record | save, step key, update or 0)."""

    store: Path
    events: list[tuple[str, str, int]] = field(default_factory=list)

    def start(self) -> StoreWatch:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._inotify = self._libc.inotify_init1(os.O_NONBLOCK)
        self._watched: dict[int, Path] = {}
        for name in (".partial", "runs"):
            (self.store / name).mkdir(parents=True, exist_ok=True)
            self._watch(self.store / name)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        time.sleep(0.2)
        self._ended.set()
        self._thread.join()
        os.close(self._inotify)

    def _watch(self, folder: Path) -> None:
        number = self._libc.inotify_add_watch(self._inotify, str(folder).encode(), CREATED | MOVED_AWAY)
        if number >= 0:  # else it is gone already
            self._watched[number] = folder

    def _follow(self) -> None:
        while not self._ended.is_set():
            try:
                read = os.read(self._inotify, 65536)
            except BlockingIOError:
                time.sleep(0.02)
                continue
            at = 0
            while at < len(read):
                number, mask, _, length = EVENT.unpack_from(read, at)
                name = read[at + EVENT.size : at + EVENT.size + length].split(b"\0")[0].decode()
                at += EVENT.size + length
                if number in self._watched and mask & FOLDER:
                    self._seen(self._watched[number], name, bool(mask & CREATED))

    def _seen(self, folder: Path, name: str, created: bool) -> None:
        if folder.name == ".partial":
            if not name.endswith("-replaced"):
                self.events.append(("start" if created else "record", name.split("-")[0], 0))
        elif folder.name == "runs":
            if created:
                self._watch(folder / name)
        elif created and name.startswith("checkpoint-"):
            self.events.append(("save", folder.name, int(name.rsplit("-", 1)[1])))

    def starts(self) -> dict[str, int]:
        """How often each step was started."""
        keys = [key for what, key, _ in self.events if what == "start"]
        return {key: keys.count(key) for key in keys}

    def repeated(self) -> list[str]:
        """Work that was done twice although it need not: a recorded step started again, a saved update trained again."""
        recorded: set[str] = set()
        saved: dict[str, int] = {}
        found = []
        for what, key, update in self.events:
            if what == "record":
                recorded.add(key)
            elif what == "start" and key in recorded:
                found.append(f"{key} was recorded and started again")
            elif what == "save":
                if update <= saved.get(key, 0):
                    found.append(f"{key} saved update {update} after {saved[key]}")
                saved[key] = update
        return found
