"""Rows of WebDataset archives (.tar): files that share a name up to its first dot are one row.

The image is the file with an image's suffix (several: in the order of the archive). A .json file gives its keys as columns,
.txt a `text`, .cls a `label`, any other text file a column of its suffix. Rows are counted from 1 in the order of the archive.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from lmmcl.errors import UserError
from lmmcl.tasks.readers.row_values import JsonReader, Unreadable, kind

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "jfif")
MEDIA = ("mp4", "avi", "mov", "webm", "mkv", "mp3", "wav", "flac", "ogg")
COLUMNS = {"txt": "text", "cls": "label", "caption": "caption"}


def tar_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """The rows of an archive; one whose parts cannot be read comes as `Unreadable`."""
    number = 0
    sample: _Sample | None = None
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if not member.isfile() or PurePosixPath(member.name).name.startswith("."):
                    continue
                key, suffix = _split(member.name)
                if sample is None or key != sample.key:
                    if sample is not None:
                        yield number, sample.row()
                    number, sample = number + 1, _Sample(key)
                stream = archive.extractfile(member)
                sample.add(member.name, suffix, stream.read() if stream else b"")
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"is not a readable tar archive: {error}", file=str(path)) from error
    if sample is not None:
        yield number, sample.row()


def _split(name: str) -> tuple[str, str]:
    """`shard/0001.left.jpg` → (`shard/0001`, `left.jpg`)."""
    folder, _, file = name.rpartition("/")
    stem, _, suffix = file.partition(".")
    return f"{folder}/{stem}" if folder else stem, suffix.lower()


class _Sample:
    """The files of one row."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.columns: dict[str, Any] = {"id": key}
        self.images: list[bytes] = []
        self.problem: str | None = None

    def add(self, name: str, suffix: str, data: bytes) -> None:
        last = suffix.rpartition(".")[2]
        try:
            if last in IMAGE_SUFFIXES:
                self.images.append(data)
            elif last in MEDIA:
                self.columns["video"] = name
            elif last == "json":
                self.columns.update(_object(data))
            else:
                self.columns[COLUMNS.get(suffix, suffix)] = data.decode("utf-8-sig").strip()
        except ValueError as error:
            self.problem = self.problem or f"{name}: {error}"

    def row(self) -> Any:
        """The columns; images of the archive stand for those that its .json names."""
        if self.problem is not None:
            return Unreadable(self.problem)
        named = {name: value for name, value in self.columns.items() if name not in ("image", "images")}
        return {**named, "images": self.images} if self.images else self.columns


def _object(data: bytes) -> dict[str, Any]:
    value = JsonReader().decode(data.decode("utf-8-sig"))
    if isinstance(value, Unreadable):
        raise ValueError(value.reason)
    if not isinstance(value, dict):
        raise ValueError(f"holds {kind(value)} where an object is expected")
    return value
