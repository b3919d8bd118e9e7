"""What a person is told when the input is wrong: one message with place, remedy and the nearest allowed name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self, get_args

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError


class UserError(Exception):
    """Bad input. The command line prints it as one message and exits with code 2; nothing finished is lost."""

    def __init__(self, message: str, *, file: str | None = None, place: str | None = None) -> None:
        where = ": ".join(part for part in (file, place) if part)
        super().__init__(f"{where}: {message}" if where else message)
        self.message = message
        self.file = file
        self.place = place

    def at(self, *, file: str | None = None, place: str | None = None) -> Self:
        """The same error, told with the file and the place in it that the thrower did not know."""
        return type(self)(self.message, file=file or self.file, place=place or self.place)

    def __reduce__(self) -> tuple:  # errors cross process borders (Ray), and the default loses the keywords
        return (_rebuild, (type(self), self.message, self.file, self.place))


def _rebuild(kind: type[UserError], message: str, file: str | None, place: str | None) -> UserError:
    return kind(message, file=file, place=place)


def unknown(kind: str, word: str, allowed: Iterable[str]) -> str:
    """'unknown recipe 'sa_prj'; did you mean 'sa_proj'? allowed: full, gate_up, …'"""
    names = sorted(allowed)
    near = difflib.get_close_matches(word, names, n=2, cutoff=0.6)
    hint = f"; did you mean {' or '.join(repr(name) for name in near)}?" if near else ";"
    return f"unknown {kind} {word!r}{hint} allowed: {', '.join(names) or '(none)'}"


def bad_setting(what: str, error: ValidationError, kind: type[BaseModel]) -> UserError:
    """The first problem of the settings of `what` (a mitigation, a recipe, a probe): what is wrong and what is allowed.

    'wise_ft.alpha: Input should be less than or equal to 1, not 2; allowed: 0 to 1'
    """
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    where = f"{what}.{place}" if place else what
    field = kind.model_fields.get(str(first["loc"][0])) if first["loc"] else None
    if field is not None and first["type"] == "literal_error" and isinstance(first["input"], str):
        return UserError(f"{where}: {unknown('value', first['input'], map(str, get_args(field.annotation)))}")
    message = first["msg"].removeprefix("Value error, ")
    given = "" if first["type"] in ("value_error", "missing") else f", not {first['input']!r}"
    span = _span(field.metadata) if field is not None else ""
    return UserError(f"{where}: {message}{given}{f'; allowed: {span}' if span else ''}")


def _span(limits: Iterable[Any]) -> str:
    """`0 to 1`, `above 0, at most 1`: a field's limits in words; empty where it has none."""
    found = {
        name: value
        for limit in limits
        for name in ("ge", "gt", "le", "lt")
        if (value := getattr(limit, name, None)) is not None
    }
    if found.keys() == {"ge", "le"}:
        return f"{found['ge']} to {found['le']}"
    said = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    return ", ".join(f"{words} {found[name]}" for name, words in said.items() if name in found)


def explain(error: BaseException) -> str:
    """One line on what went wrong at the bottom of it: Ray wraps an error once for each process that it passes."""
    root: BaseException = error
    while isinstance(cause := getattr(root, "cause", None), BaseException) and cause is not root:
        root = cause
    return str(root) if isinstance(root, UserError) else f"{type(root).__name__}: {root}"
