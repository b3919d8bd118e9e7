"""The rows of a local data file, whatever its container: .json (a list), .jsonl (one object a line), .parquet.

A container knows nothing of dialogues: that is `formats.py`. Rows are counted from 1, so that in a .jsonl file the row
number is the line number an editor shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmmcl.errors import UserError, shown

SUFFIXES = (".json", ".jsonl", ".parquet")
PARQUET_BATCH = 256
"""Rows turned into Python at a time: embedded images make rows large, and only one batch need be held twice."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A row that is not even JSON, and why."""

    reason: str


def read_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """(row number from 1, row) in file order; a line of a .jsonl file that is not JSON comes as `Unreadable`.

    Rows may be of any JSON type: the reader of rows judges them. Raises UserError where the file as a whole cannot be
    read: it is missing, has an unknown suffix, or is not what its suffix says.
    """
    check_container(path)
    read = {".json": _json, ".jsonl": _json_lines, ".parquet": _parquet}[path.suffix.lower()]
    try:
        yield from read(path)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror or error}", file=str(path)) from error


def check_container(path: Path) -> None:
    """Raises UserError unless the path is a file with a suffix that can be read."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        allowed = ", ".join(SUFFIXES)
        raise UserError(f"cannot read {suffix or 'a file without suffix'}; allowed: {allowed}", file=str(path))
    if not path.is_file():
        raise UserError("is a folder, not a file" if path.is_dir() else "no such file", file=str(path))


def _json(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        data = json.loads(path.read_bytes().decode("utf-8-sig"), object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        lines = isinstance(error, json.JSONDecodeError) and error.msg == "Extra data"
        hint = "; one object a line? then name it .jsonl" if lines else ""
        raise UserError(f"is not JSON: {error}{hint}", file=str(path)) from error
    if not isinstance(data, list):
        raise UserError(f"holds {kind(data)} where a list of rows is expected", file=str(path))
    yield from ((number, _checked(row)) for number, row in enumerate(data, start=1))


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                yield number, _checked(json.loads(line.decode("utf-8-sig"), object_pairs_hook=_object))
            except (ValueError, RecursionError) as error:
                yield number, Unreadable(f"is not JSON: {error}")


class _Twice(dict[str, Any]):
    """An object in which `key` is given twice: JSON readers silently keep the last."""

    key = ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    twice, names = _Twice(found), [name for name, _ in pairs]
    twice.key = next(name for name in names if names.count(name) > 1)
    return twice


def _checked(row: Any) -> Any:
    """The row, or `Unreadable` where an object in it gives a key twice."""
    open_values = [row]
    while open_values:
        value = open_values.pop()
        if isinstance(value, _Twice):
            return Unreadable(f"the key {shown(value.key)} is given twice in one object")
        open_values += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return row


def _parquet(path: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=PARQUET_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        raise UserError(f"is not a readable parquet file: {error}", file=str(path)) from error


def kind(value: object) -> str:
    """What a value is, in the words of JSON: 'a list', 'an object', 'the number 3'."""
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, bool):
        return f"the truth value {value}"
    if isinstance(value, int | float):
        return "a number"
    if value is None:
        return "null"
    return "a text" if isinstance(value, str) else f"a {type(value).__name__}"
