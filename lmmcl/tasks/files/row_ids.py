"""Ids of the rows of a file, as a test file needs them: each once, where the id of a row that names none is its number."""

from __future__ import annotations

LONGEST_NUMBER = 12
"""Digits of a row's number."""


class RowIds:
    """The ids of the rows so far; a row without an id takes a byte, for a file may have millions of them."""

    def __init__(self) -> None:
        self._named: dict[str, int] = {}
        self._unnamed = bytearray(1)
        """By row number, from 1: whether the number is the row's id."""

    def first_with(self, id: str, number: int, *, is_named: bool) -> int:
        """The earlier row that has this id; `number` itself, which is then known, where there is none."""
        if not is_named:
            self._unnamed.extend(bytes(number - len(self._unnamed)) + b"\1")
            return self._named.get(id, number)
        if (
            id.isdecimal()
            and len(id) <= LONGEST_NUMBER
            and str(row := int(id)) == id
            and self._unnamed[row : row + 1] == b"\1"
        ):
            return row
        return self._named.setdefault(id, number)
