"""Files that a person opens, written whole: beside their place first, then renamed, so that an old one stays until then."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write a file or a folder to; renamed to `path` at the end of the `with`, removed on an error.

    The folder above is made where it is missing. The permissions of a file that is replaced stay. Raises IsADirectoryError where a
    file would replace a folder.
    """
    path = path.resolve() if path.is_symlink() else path
    if not path.name:  # such as `.`
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays: some writers choose the format by it.
    partial = path.with_name(f".{uuid.uuid4().hex[:12]}.partial{path.suffix}")
    try:
        yield partial
        if not partial.exists():  # nothing was written after all
            return
        if partial.is_file():
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
            _flush(partial)
            if path.is_file():
                shutil.copymode(path, partial)
            partial.replace(path)
        else:
            _swap(partial, path)
    finally:
        if partial.is_dir() and not partial.is_symlink():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str | Iterable[str]) -> None:
    """Put `text` (UTF-8), or its parts as they are made, in the place of `path` at once."""
    parts = [text] if isinstance(text, str) else text
    with (
        replacing(path) as partial,
        partial.open("w", encoding="utf-8", errors="backslashreplace") as file,  # a name of bytes that are not UTF-8
    ):
        file.writelines(parts)


def write_bytes(path: Path, content: bytes) -> None:
    """Put `content` in the place of `path` at once."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def _flush(path: Path) -> None:
    """Some file systems report a full disk only when the bytes have to reach it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _swap(partial: Path, path: Path) -> None:
    """A folder replaces an empty one at once; one that holds files steps aside first."""
    if path.is_dir() and any(path.iterdir()):
        old = path.with_name(f".{uuid.uuid4().hex[:12]}.replaced")
        path.rename(old)
        partial.rename(path)
        shutil.rmtree(old, ignore_errors=True)
        return
    try:
        partial.rename(path)
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.EXDEV):
            raise
        for entry in partial.iterdir():  # a mount point can be filled, not replaced
            shutil.move(entry, path / entry.name)
