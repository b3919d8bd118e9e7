"""Prepared data: Examples in a parquet file, written once and read one by one in any order.

A file holds rows of messages with their images embedded as they were downloaded (no re-encoding), and in its own metadata
what it was made from. Row groups are small, so that a shuffled pass reads little more than it uses.
"""

from __future__ import annotations

import json
import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

from lmmcl.errors import UserError
from lmmcl.tasks.examples import Example, Rows
from lmmcl.tasks.files.formats import ParsedRow, parse_row
from lmmcl.tasks.images import EncodedImage
from lmmcl.tasks.readers.row_values import place_in_row

ABOUT = b"lmmcl"
GROUP_ROWS, GROUP_BYTES = 128, 2 << 20
"""A row group ends at whichever comes first."""
HELD_GROUPS = 8


class PreparedExamples(Rows):
    """The examples of a prepared file; images are decoded at each use, and only a few row groups are held.

    May be sent to other processes and used from several threads. Raises UserError for a file that cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._owner = 0
        self._open()

    def __getstate__(self) -> Path:
        return self.path

    def __setstate__(self, path: Path) -> None:
        self.__init__(path)  # type: ignore[misc]

    def _open(self) -> None:
        """Open the file in this process: a reader does not survive a fork."""
        self._file = open_parquet(self.path)
        metadata = self._file.metadata
        self._ends = list(accumulate(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)))
        self._groups: OrderedDict[int, list[dict[str, Any]]] = OrderedDict()
        self._owner = os.getpid()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def row(self, index: int) -> Example:
        group = bisect_right(self._ends, index)
        start = self._ends[group - 1] if group else 0
        parsed = ParsedRow(index + 1)
        example = parse_row(self._rows(group)[index - start], parsed, self.path.parent)
        if example is None or parsed.problems:
            place, message = parsed.problems[0]
            raise UserError(message, file=str(self.path), place=place_in_row(index + 1, place))
        return example

    def values(self, field: str) -> list[Any]:
        """The values of one column of metadata, without reading the images."""
        return self._file.read([field]).column(0).to_pylist()

    def _rows(self, group: int) -> list[dict[str, Any]]:
        if self._owner != os.getpid():
            self._lock = threading.Lock()
            self._open()
        with self._lock:
            if group not in self._groups:
                self._groups[group] = self._file.read_row_group(group, use_threads=False).to_pylist()
                if len(self._groups) > HELD_GROUPS:
                    self._groups.popitem(last=False)
            self._groups.move_to_end(group)
            return self._groups[group]


def open_parquet(path: Path) -> Any:
    """The parquet file, memory-mapped; raises UserError when it is none."""
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path, memory_map=True)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"is not a readable parquet file: {error}", file=str(path)) from error


def about(path: Path) -> dict[str, Any]:
    """What a prepared file says of itself: name, part, version, hub id, revision, rows; empty for another file."""
    metadata = (open_parquet(path).metadata.metadata or {}).get(ABOUT)
    return json.loads(metadata) if metadata else {}


class PreparedWriter:
    """Writes Examples to a parquet file; nothing lies at `path` before `close`, which puts it there at once."""

    def __init__(self, path: Path, metadata_fields: Mapping[str, type]) -> None:
        import pyarrow

        kinds = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64(), bool: pyarrow.bool_()}
        turn = pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())])
        image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
        self.path = path
        self.partial = path.with_name(f"{path.stem}.{os.getpid()}.partial.parquet")
        self.schema = pyarrow.schema(
            [
                ("id", pyarrow.string()),
                ("messages", pyarrow.list_(turn)),
                ("images", pyarrow.list_(image)),
                ("answers", pyarrow.list_(pyarrow.string())),
                *((name, kinds[kind]) for name, kind in metadata_fields.items()),
            ]
        )
        self.count = 0
        self._writer: Any = None
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0
        path.parent.mkdir(parents=True, exist_ok=True)

    def add(self, example: Example) -> None:
        """Append one example; its images are EncodedImages."""
        images = [image.data for image in example.images if isinstance(image, EncodedImage)]
        if len(images) < len(example.images):
            raise TypeError(f"example {example.id}: an image of a prepared file is an EncodedImage")
        self._rows.append(
            {
                "id": example.id,
                "messages": [{"role": turn.role, "content": turn.content} for turn in example.messages],
                "images": [{"bytes": data, "path": None} for data in images],
                "answers": list(example.answers) or None,
                **example.metadata,
            }
        )
        self.count += 1
        self._bytes += sum(map(len, images))
        if len(self._rows) >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        import pyarrow
        import pyarrow.parquet

        if self._writer is None:  # images are compressed already
            self._writer = pyarrow.parquet.ParquetWriter(self.partial, self.schema, compression="none")
        self._writer.write_table(pyarrow.Table.from_pylist(self._rows, schema=self.schema))
        self._rows, self._bytes = [], 0

    def finish(self, facts: Mapping[str, Any]) -> Path:
        """End the file with what it says of itself; it still lies beside its place. `close` puts it there."""
        self._flush()
        self._writer.add_key_value_metadata({ABOUT.decode(): json.dumps(dict(facts))})
        self._writer.close()
        self._writer = None
        return self.partial

    def close(self) -> None:
        """Put the finished file in its place."""
        self.partial.replace(self.path)

    def discard(self) -> None:
        """Remove what was written, after a failure."""
        if self._writer is not None:
            self._writer.close()
        self.partial.unlink(missing_ok=True)
