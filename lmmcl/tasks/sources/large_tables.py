"""Large tables with embedded images are not held in memory: their rows are read one by one from a copy in small row groups.

Parquet files with images have row groups of hundreds of megabytes, and a shuffled pass would read one of them for each row.
The copy lies in the data folder (LMMCL_DATA) under the digest of the file. It is written once and may be deleted at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, islice
from pathlib import Path

from lmmcl.tasks.examples import Example
from lmmcl.tasks.files.parse_rows import container_kind
from lmmcl.tasks.files.prepared import PreparedExamples, PreparedWriter
from lmmcl.tasks.hub.hub_data import data_folder
from lmmcl.tasks.images import EncodedImage
from lmmcl.tasks.readers.arrow_rows import saved_files

LARGE = 256 << 20
"""Bytes; a smaller table is held in memory."""
SAMPLED = 1024
"""Rows looked at before the first is written, for the names and types of their metadata."""


def is_large_table(path: Path) -> bool:
    """Whether the rows of a file are those of a typed table, and too large to be held by every process that reads them."""
    kind = container_kind(path)
    files = saved_files(path) if kind == "saved" else [path] if kind in (".parquet", ".arrow") else []
    return sum(file.stat().st_size for file in files) >= LARGE


def stored_examples(digest: str, rows: Iterable[Example]) -> Sequence[Example] | None:
    """The rows, read one by one from the copy of this digest; None where an image is a file of its own, which needs no copy."""
    file = data_folder() / "files" / f"{digest}.parquet"
    if not file.is_file() and not _write(file, rows):
        return None
    return PreparedExamples(file)


def _write(file: Path, rows: Iterable[Example]) -> bool:
    """Whether all rows could be copied."""
    rows = iter(rows)
    first = list(islice(rows, SAMPLED))
    kinds: dict[str, type] = {}
    for example in first:
        for name, value in example.metadata.items():
            kinds.setdefault(name, type(value))
    writer = PreparedWriter(file, kinds)
    try:
        for example in chain(first, rows):
            if not all(isinstance(image, EncodedImage) for image in example.images):
                return False
            writer.add(example)
        writer.finish({"digest": file.stem, "rows": writer.count})
        writer.close()
    finally:
        writer.discard()
    return True
