"""What all readers share: the words for a value's type, and rows that could not be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lmmcl.errors import shown


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A row that could not be read, and why."""

    reason: str


class RepeatedKey(dict[str, Any]):
    """An object in which `key` is given twice: JSON readers silently keep the last."""

    key = ""


def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of a JSON text, for `object_pairs_hook`."""
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    repeated, names = RepeatedKey(found), [name for name, _ in pairs]
    repeated.key = next(name for name in names if names.count(name) > 1)
    return repeated


def checked(row: Any) -> Any:
    """The row, or `Unreadable` where an object in it gives a key twice."""
    open_values = [row]
    while open_values:
        value = open_values.pop()
        if isinstance(value, RepeatedKey):
            return Unreadable(f"the key {shown(value.key)} is given twice in one object")
        open_values += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return row


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
