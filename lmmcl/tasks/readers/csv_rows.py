"""Rows of .csv and .tsv files: the first row names the columns, every cell is a text.

No cell becomes a number: "007" stays "007". An empty cell is null. Rows have the numbers that a spreadsheet shows: the names of
the columns are row 1.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from lmmcl.errors import UserError, shown
from lmmcl.tasks.readers.row_values import Unreadable


def separated(path: Path, delimiter: str) -> Iterator[tuple[int, Any]]:
    """The rows of a file whose cells are separated by `delimiter` and may be quoted; a row of another length is `Unreadable`."""
    csv.field_size_limit(sys.maxsize)  # a cell may be an image in base64
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = csv.reader(stream, delimiter=delimiter, strict=True)
        try:
            names = _names(next(rows, []), path, delimiter)
            for number, cells in enumerate(rows, start=2):
                if not cells:
                    continue
                if len(cells) != len(names):
                    yield number, Unreadable(f"has {len(cells)} cells, and the file {len(names)} columns")
                else:
                    yield number, {name: cell or None for name, cell in zip(names, cells, strict=True)}
        except csv.Error as error:
            raise UserError(f"is not a table: line {rows.line_num}: {error}", file=str(path)) from error
        except UnicodeDecodeError as error:
            raise UserError(f"is not UTF-8: {error}; save it as UTF-8", file=str(path)) from error


def _names(cells: list[str], path: Path, delimiter: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    if not any(names):
        raise UserError("holds no rows: the first row names the columns", file=str(path))
    if len(names) == 1:
        for other, remedy in ((";", "commas"), ("\t", "commas, or name it .tsv"), (",", "tabs, or name it .csv")):
            if other != delimiter and other in names[0]:
                why = f"has one column, {shown(names[0])}, separated by {other!r}? Save it with {remedy}"
                raise UserError(why, file=str(path))
    for place, name in enumerate(names):
        if not name:
            raise UserError(f"column {place + 1} has no name in the first row", file=str(path))
        if name in names[:place]:
            raise UserError(f"two columns are named {shown(name)}", file=str(path))
    return names


comma_separated = partial(separated, delimiter=",")
tab_separated = partial(separated, delimiter="\t")
