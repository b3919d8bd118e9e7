"""Content digests of files, remembered between runs so that planning over large folders stays instant.

A digest is the SHA-256 of a file's bytes. It is remembered under the file's path, size, times, inode and resolved path: what
`rsync -a` or tar puts in the place of another may well have its size and modification time. The memory is a SQLite file in the
user's cache folder ($XDG_CACHE_HOME/lmmcl or ~/.cache/lmmcl), which processes may share and anybody may delete.
A cache that cannot be used costs time, never truth: it is said by a warning and everything is read again.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
import stat
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeVar

S = TypeVar("S")
T = TypeVar("T")

PART = 32
"""Values that a thread takes at a time."""
ASKED = 500
"""Values in one query; SQLite allows 999 in old builds."""

SETTLED = 2_000_000_000
"""Nanoseconds. A file changed more recently than this may change again within one tick of its file system's clock (two
seconds on FAT), keeping size and times, so nothing is remembered of it (as git treats 'racily clean' entries)."""

_TABLES = """
CREATE TABLE IF NOT EXISTS file_states (path TEXT PRIMARY KEY, state TEXT, digest TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS remembered (key TEXT PRIMARY KEY, value TEXT);
"""
"""Values may be megabytes long: without row numbers SQLite would read the whole of one to compare a key with its own."""


class FileState(NamedTuple):
    """A file as its folder entry tells it; as long as this is unchanged, so are the bytes."""

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    """When bytes, name or rights were last changed: unlike the modification time nobody can set it."""
    inode: int
    resolved: str
    """The path without symbolic links."""

    @property
    def settled(self) -> bool:
        """Whether the file is older than what two changes in a row can hide from its times."""
        return time.time_ns() - max(self.mtime_ns, self.ctime_ns) > SETTLED

    @property
    def stamp(self) -> str:
        """All but the path, in one text."""
        return "\0".join(map(str, self[1:]))


def state_of(path: Path) -> FileState:
    """The state of a file under its absolute path; raises OSError when it is missing or no plain file."""
    absolute = os.path.join(os.getcwd(), path)  # noqa: PTH109, PTH118  # a sweep may name 100,000 images: one look at each
    status = os.lstat(absolute)
    if stat.S_ISLNK(status.st_mode):
        resolved, status = os.path.realpath(absolute), os.stat(absolute)  # noqa: PTH116
    else:
        folder, name = os.path.split(absolute)
        resolved = os.path.join(_resolved_folder(folder), name)  # noqa: PTH118
    if not stat.S_ISREG(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is not a file", str(path))
    return FileState(absolute, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, resolved)


@lru_cache(maxsize=4096)
def _resolved_folder(folder: str) -> str:
    """Of a folder, once a process: a link that leads elsewhere meanwhile leads to other inodes."""
    return os.path.realpath(folder)


def hash_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cache_folder() -> Path:
    """Where this user's caches of lmmcl lie."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "lmmcl"


def in_threads(work: Callable[[S], T], values: Sequence[S]) -> list[T]:
    """What `work` makes of each value, several at a time and in order; a thread takes many, as there may be 100,000 small files."""
    parts = [values[start : start + PART] for start in range(0, len(values), PART)]
    with ThreadPoolExecutor(max_workers=8) as pool:
        return [result for part in pool.map(lambda part: [work(value) for value in part], parts) for result in part]


def _select(connection: sqlite3.Connection, query: str, values: Sequence[str]) -> Iterator[tuple]:
    """The rows of a query in which a column has one of the values."""
    for start in range(0, len(values), ASKED):
        part = values[start : start + ASKED]
        yield from connection.execute(f"{query} IN ({','.join('?' * len(part))})", part)


class DigestCache:
    """Digests of files by their state, and memos (texts computed from digests) by their key."""

    def __init__(self, folder: Path | None = None) -> None:
        self.file = (folder or cache_folder()) / "digests.sqlite"

    def digests(self, states: Sequence[FileState]) -> list[str]:
        """The digest of each file; those not remembered are read, several at a time."""
        known = self._known(states)
        missing = [state for state in dict.fromkeys(states) if state not in known]
        fresh = dict(zip(missing, in_threads(hash_file, [state.path for state in missing]), strict=True))
        rows = [(state.path, state.stamp, digest) for state, digest in fresh.items() if state.settled]
        self._write("INSERT OR REPLACE INTO file_states VALUES (?, ?, ?)", rows)
        known.update(fresh)
        return [known[state] for state in states]

    def recall(self, key: str) -> str | None:
        """The memo under this key, if there is one."""
        query = "SELECT value FROM remembered WHERE key = ?"
        row = self._transact(lambda connection: connection.execute(query, (key,)).fetchone(), None)
        return row[0] if row else None

    def remember(self, key: str, value: str) -> None:
        """Keeps a memo. The key must name all that the value was computed from."""
        self._write("INSERT OR REPLACE INTO remembered VALUES (?, ?)", [(key, value)])

    def recall_many(self, keys: Sequence[str]) -> dict[str, str]:
        """The memos under these keys, as far as there are any."""

        def look_up(connection: sqlite3.Connection) -> dict[str, str]:
            return dict(_select(connection, "SELECT key, value FROM remembered WHERE key", keys))

        return self._transact(look_up, {})

    def remember_many(self, memos: Mapping[str, str]) -> None:
        """Keeps memos by their keys, as `remember` does."""
        self._write("INSERT OR REPLACE INTO remembered VALUES (?, ?)", list(memos.items()))

    def _known(self, states: Sequence[FileState]) -> dict[FileState, str]:

        def look_up(connection: sqlite3.Connection) -> dict[FileState, str]:
            paths = [state.path for state in states]
            rows = _select(connection, "SELECT path, state, digest FROM file_states WHERE path", paths)
            known = {(path, stamp): digest for path, stamp, digest in rows}
            remembered = ((state, known.get((state.path, state.stamp))) for state in states)
            return {state: digest for state, digest in remembered if digest is not None}

        return self._transact(look_up, {})

    def _write(self, statement: str, rows: Sequence[tuple]) -> None:
        if rows:
            self._transact(lambda connection: connection.executemany(statement, rows), None)

    def _transact(self, action: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """What `action` returns, or `otherwise` with a warning when the cache cannot be used.

        A connection lives for one transaction: kept open it would not survive a fork, and would lock others out.
        """
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.file, timeout=30)) as connection, connection:
                connection.executescript(_TABLES)
                return action(connection)
        except (OSError, sqlite3.Error) as error:
            message = f"digests are not remembered, so data files are read again each time: {self.file}: {error}"
            warnings.warn(message, RuntimeWarning, stacklevel=3)
            return otherwise
