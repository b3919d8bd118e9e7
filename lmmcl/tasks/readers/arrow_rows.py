"""Rows of .parquet and .arrow files and of folders that `save_to_disk` of `datasets` wrote.

Values are as they are stored: images stay the bytes of their files, texts stay texts. Numbers of a column of class labels
become the names that the file's own schema gives them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lmmcl.errors import UserError

BATCH = 256
"""Rows turned into Python at a time: embedded images make rows large, and only one batch need be held twice."""


def parquet_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """The rows of a .parquet file."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield from _rows(file.iter_batches(batch_size=BATCH), file.schema_arrow, 0)
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        raise UserError(f"is not a readable parquet file: {error}", file=str(path)) from error


def arrow_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """The rows of an .arrow file, in either of Arrow's two formats for files."""
    return _arrow(path, 0)


def saved_rows(folder: Path) -> Iterator[tuple[int, Any]]:
    """The rows of a data set that `save_to_disk` wrote."""
    number = 0
    for file in saved_files(folder)[1:]:
        for number, row in _arrow(file, number):  # noqa: B020  # each file counts from where the last one ended
            yield number, row


def saved_files(folder: Path) -> Sequence[Path]:
    """The files of a saved data set: its state, then its rows in order; raises UserError where its state is damaged."""
    state = folder / "state.json"
    try:
        names = [entry["filename"] for entry in json.loads(state.read_text(encoding="utf-8"))["_data_files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"is not the state of a saved data set: {error}", file=str(state)) from error
    return [state, *(folder / name for name in names)]


def _arrow(path: Path, count: int) -> Iterator[tuple[int, Any]]:
    import pyarrow

    try:
        with pyarrow.memory_map(str(path)) as source:
            try:
                reader = pyarrow.ipc.open_stream(source)
                batches: Iterable[Any] = reader
            except pyarrow.ArrowInvalid:
                source.seek(0)
                file = reader = pyarrow.ipc.open_file(source)
                batches = (file.get_batch(at) for at in range(file.num_record_batches))
            parts = (batch.slice(at, BATCH) for batch in batches for at in range(0, batch.num_rows, BATCH))
            yield from _rows(parts, reader.schema, count)
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        raise UserError(f"is not a readable arrow file: {error}", file=str(path)) from error


def _rows(batches: Iterable[Any], schema: Any, number: int) -> Iterator[tuple[int, Any]]:
    labels = class_names(schema.metadata)
    for batch in batches:
        for row in batch.to_pylist():
            number += 1
            for column, names in labels.items():
                row[column] = _name(row.get(column), names)
            yield number, row


def _name(value: Any, names: Sequence[str]) -> Any:
    """The name of a class; null for the -1 that stands for an unknown class."""
    if value is None or value == -1:
        return None
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


def class_names(metadata: dict[bytes, bytes] | None) -> dict[str, list[str]]:
    """Column → names of its classes, as `datasets` writes them into a schema; empty where it did not."""
    features = json.loads((metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features") or {}
    return {
        column: feature["names"]
        for column, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
    }
