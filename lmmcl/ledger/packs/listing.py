"""Listings of files: of a folder of this machine, quickly (a store has hundreds of thousands), and what names and stamps say."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any


def local_stamp(file: str) -> str | None:
    """When and how large a file of this machine was written; None where there is none."""
    try:
        state = os.stat(file)  # noqa: PTH116 - asked for every record of a store, and a Path costs as much as the question
    except (FileNotFoundError, NotADirectoryError):
        return None
    return f"{state.st_mtime_ns:x}-{state.st_size:x}"


def walk_files(folder: str, *, depth: int | None = None) -> Iterator[os.DirEntry[str]]:
    """The files below a folder, links followed; `depth` 1 looks into no other folder. None where there is no such folder."""
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if not entry.is_dir():
            yield entry
        elif depth is None or depth > 1:
            yield from walk_files(entry.path, depth=None if depth is None else depth - 1)


def tag_of(about: Mapping[str, Any]) -> Any:
    """What an object store says of a file that is other when it was written again."""
    names = ("ETag", "etag", "md5Hash", "content_md5", "LastModified", "last_modified", "updated", "mtime", "created")
    return next((about[name] for name in names if about.get(name)), None)


def name_pattern(pattern: str) -> re.Pattern[str]:
    """Names that a pattern means: `*` stands for a part of a name, `**` for folders at any depth."""
    text = re.escape(pattern).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
    return re.compile(text, re.DOTALL)
