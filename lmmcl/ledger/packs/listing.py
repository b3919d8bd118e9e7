"""Files here and on object stores: listings, made quickly (a store has hundreds of thousands), stamps, beginnings, syncing."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem


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


def names_in(folder: str) -> list[str]:
    """What is in a folder of this machine; nothing where there is no such folder."""
    try:
        return os.listdir(folder)  # noqa: PTH208 - names are wanted, and a folder of a large store has thousands
    except (FileNotFoundError, NotADirectoryError):
        return []


def local_sizes(root: str) -> dict[str, int]:
    """Bytes of the files below a folder of this machine, by their names in it."""
    sizes = {}
    for entry in walk_files(root):
        with suppress(FileNotFoundError):  # deleted a moment ago
            sizes[entry.path[len(root) + 1 :]] = entry.stat().st_size
    return sizes


def sync(path: Path) -> None:
    """Wait until a file or folder of this machine is on its disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def list_files(
    system: AbstractFileSystem, root: str, folder: str, *, depth: int | None = None, detail: bool = False
) -> Any:
    """The files below `folder` of a store at `root` on another file system; none where there is no such folder.

    At least those down to `depth` folders, where it is given. In S3 that takes one request: for a folder as the path itself, the
    client would look twice more where it is not there.
    """
    if folder and "s3" in system.protocol:
        return system.find(root, prefix=f"{folder}/", detail=detail)
    return system.find(f"{root}/{folder}".rstrip("/"), maxdepth=depth, detail=detail)


def fetch(system: Any, path: str, size: int | None) -> Any:
    """A file of another file system, or at most its first `size` bytes, in one request.

    A beginning is named for a whole file, too: the client of S3 would else ask for its size before, and look for a folder of that
    name where there is no such file.
    """
    try:
        return system.cat_file(path, start=0, end=size)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return system.cat_file(path)[:size]  # an empty file has no first bytes, which S3 calls an error


def tag_of(about: Mapping[str, Any]) -> Any:
    """What an object store says of a file that is other when it was written again."""
    names = ("ETag", "etag", "md5Hash", "content_md5", "LastModified", "last_modified", "updated", "mtime", "created")
    return next((about[name] for name in names if about.get(name)), None)


def stamp_of(about: Mapping[str, Any]) -> str:
    """The size of a file of an object store, and its tag."""
    return f"{about.get('size')}-{tag_of(about)}"


def file_stamp(system: AbstractFileSystem, path: str) -> str | None:
    """What is other when a file was written again; None where there is no such file, or the store has no tags."""
    if isinstance(system, LocalFileSystem):
        return local_stamp(path)
    try:
        about = system.info(path)
    except FileNotFoundError:
        return None
    return None if tag_of(about) is None else stamp_of(about)


def name_pattern(pattern: str) -> re.Pattern[str]:
    """Names that a pattern means: `*` stands for a part of a name, `**` for folders at any depth."""
    text = re.escape(pattern).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
    return re.compile(text, re.DOTALL)
