"""What all readers share: the words for a value's type, and rows that could not be read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from lmmcl.errors import shown


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A row that could not be read, and why."""

    reason: str


class JsonReader:
    """Decodes JSON, and notices an object that gives a key twice: readers of JSON silently keep the last."""

    def __init__(self) -> None:
        self._repeated: str | None = None
        self.decoder = json.JSONDecoder(object_pairs_hook=self._object)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        row = dict(pairs)
        if len(row) < len(pairs):
            names = [name for name, _ in pairs]
            self._repeated = next(name for name in names if names.count(name) > 1)
        return row

    def decode(self, text: str) -> Any:
        """The value that a text holds; raises ValueError."""
        return self.checked(self.decoder.decode(text))

    def checked(self, value: Any) -> Any:
        """The value that was decoded last, or `Unreadable` where an object in it gives a key twice."""
        if self._repeated is None:
            return value
        repeated, self._repeated = self._repeated, None
        return Unreadable(f"the key {shown(repeated)} is given twice in one object")


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


def place_in_row(number: int, field: str) -> str:
    """`row 3, image`, or `row 3` where the row as a whole is meant."""
    return f"row {number}" if field == "row" else f"row {number}, {field}"
