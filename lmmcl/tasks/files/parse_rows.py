"""The rows of local data, whatever their container: .json, .jsonl, .parquet, .csv, .tsv, .arrow, .tar, and folders.

A container knows nothing of dialogues: that is `layouts.py` and `formats.py`. Rows are counted from 1, so that in a .jsonl file
the row number is the line number an editor shows, and in a .csv file that of a spreadsheet (the names of the columns are row 1).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lmmcl.errors import UserError, no_such_file
from lmmcl.tasks.files.digest import DigestCache, state_of
from lmmcl.tasks.readers.arrow_rows import arrow_rows, parquet_rows, saved_files, saved_rows
from lmmcl.tasks.readers.csv_rows import comma_separated, tab_separated
from lmmcl.tasks.readers.image_folder import class_rows, metadata_file
from lmmcl.tasks.readers.json_rows import json_lines, json_list
from lmmcl.tasks.readers.row_values import Unreadable, kind
from lmmcl.tasks.readers.tar_rows import tar_rows

__all__ = ["SUFFIXES", "Unreadable", "check_container", "default_images", "digest_of", "kind", "read_rows"]

Reader = Callable[[Path], Iterator[tuple[int, Any]]]
FILES: dict[str, Reader] = {
    ".json": json_list,
    ".jsonl": json_lines,
    ".parquet": parquet_rows,
    ".csv": comma_separated,
    ".tsv": tab_separated,
    ".arrow": arrow_rows,
    ".tar": tar_rows,
}
SUFFIXES = tuple(FILES)


class _Container(NamedTuple):
    """How rows are read: the reader, the path that it is given, and what kind of container that is."""

    kind: str
    path: Path
    read: Reader


def read_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """(row number from 1, row) in order; a row that is not even JSON (or not as long as the others) comes as `Unreadable`.

    Rows may be of any JSON type: the reader of rows judges them. Raises UserError where the file as a whole cannot be
    read: it is missing, has an unknown suffix, or is not what its suffix says.
    """
    container = _container(path)
    try:
        yield from container.read(container.path)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror or error}", file=str(path)) from error


def check_container(path: Path) -> None:
    """Raises UserError unless the path is a file or folder that can be read."""
    _container(path)


def default_images(path: Path) -> Path:
    """The folder that names of images are relative to where nothing else is said: the file's, or the folder itself."""
    return path if path.is_dir() else path.parent


def container_kind(path: Path) -> str:
    """What kind of container a path is: its suffix, `saved` or `classes`."""
    return _container(path).kind


def digest_of(path: Path, cache: DigestCache) -> str:
    """The digest of the bytes that hold the rows; of a folder of classes the names of classes and images. Raises OSError."""
    container = _container(path)
    if container.kind == "classes":
        return _hash([[row["label"], row["image"]] for _, row in container.read(path)])
    if container.kind == "saved":
        return _hash(cache.digests([state_of(file) for file in saved_files(path)[1:]]))
    return cache.digests([state_of(container.path)])[0]


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, separators=(",", ":")).encode()).hexdigest()


def _container(path: Path) -> _Container:
    if path.is_dir() and path.suffix.lower() not in SUFFIXES:
        return _folder(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        allowed = ", ".join(SUFFIXES)
        if not path.exists() and not suffix:
            raise UserError("no such file or folder", file=str(path))
        raise UserError(f"cannot read {suffix or 'a file without suffix'}; allowed: {allowed}", file=str(path))
    if not path.is_file():
        raise UserError("is a folder, not a file" if path.is_dir() else no_such_file(path), file=str(path))
    return _Container(suffix, path, FILES[suffix])


def _folder(path: Path) -> _Container:
    if (path / "dataset_dict.json").is_file():
        splits = json.loads((path / "dataset_dict.json").read_text(encoding="utf-8")).get("splits", [])
        named = " or ".join(str(path / split) for split in splits)
        raise UserError(f"holds several splits; name {named}", file=str(path))
    if (path / "state.json").is_file():
        return _Container("saved", path, saved_rows)
    if (metadata := metadata_file(path)) is not None:
        return _Container(metadata.suffix, metadata, FILES[metadata.suffix])
    return _Container("classes", path, class_rows)
