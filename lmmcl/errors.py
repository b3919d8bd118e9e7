"""Errors of input: one message with the place, what is wrong, what is allowed, the nearest name and the remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self, get_args

from lmmcl import synonyms
from lmmcl.masking import mask

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

MOST_NAMES = 10
"""Allowed names that a message lists: a store may hold thousands of checkpoints."""
LONGEST_VALUE = 200
"""Characters of a value (or a key) that a message repeats."""
CATALOGUED = frozenset({"model", "recipe", "mitigation", "skill", "benchmark", "probe", "metric"})
"""Kinds of names that `lmmcl list` lists."""
FORMS = {
    "missing": "is missing",
    "list_type": "a list is expected",
    "tuple_type": "a list is expected",
    "dict_type": "a mapping is expected",
    "mapping_type": "a mapping is expected",
    "model_type": "a mapping is expected",
    "string_type": "a text is expected",
    **dict.fromkeys(("float_type", "float_parsing"), "a number is expected"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number is expected"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false is expected"),
    "string_pattern_mismatch": "letters, digits and _ . - are expected, a letter or digit first",
}
"""Pydantic's problems in the words of YAML, by their type."""


class UserError(Exception):
    """Bad input. The command line prints it as one message and exits with code 2; nothing finished is lost.

    Secrets of URIs in it are masked: messages end on consoles, on pages and in notes of failures.
    """

    def __init__(self, message: str, *, file: str | None = None, place: str | None = None) -> None:
        self.message = mask(message)
        self.file = file and mask(file)
        self.place = place and mask(place)
        where = ": ".join(part for part in (self.file, self.place) if part)
        super().__init__(f"{where}: {self.message}" if where else self.message)

    def at(self, *, file: str | None = None, place: str | None = None) -> Self:
        """The same error with the file and the place in it, which the code that raised it did not know."""
        return type(self)(self.message, file=file or self.file, place=place or self.place)

    def at_end(self, more: str) -> Self:
        """The same error with `more` behind its message."""
        return type(self)(self.message + more, file=self.file, place=self.place)

    def __reduce__(self) -> tuple:  # errors cross process borders (Ray), and the default loses the keywords
        return (_rebuild, (type(self), self.message, self.file, self.place))


def _rebuild(kind: type[UserError], message: str, file: str | None, place: str | None) -> UserError:
    return kind(message, file=file, place=place)


def shown(value: Any) -> str:
    """A value as a message repeats it, cut where it is long."""
    return cut(repr(value))


def cut(text: str, most: int = LONGEST_VALUE) -> str:
    """At most `most` characters of a text."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def unknown(kind: str, word: str, allowed: Iterable[str]) -> str:
    """'unknown recipe 'sa_prj'; did you mean 'sa_proj'? allowed: full, gate_up, …'"""
    names, typed = sorted(set(allowed)), str(word)[: 2 * LONGEST_VALUE]
    near = synonyms.synonyms(typed, names)[:2] or _near(typed, names)
    hint = f"; did you mean {' or '.join(repr(name) for name in near)}?" if near else ";"
    remark = f" ({known})" if (known := synonyms.remark(typed)) else ""
    return f"unknown {kind} {shown(word)}{hint}{remark if near else ''} allowed: {_listed(kind, names)}"


def unknown_key(kind: str, key: Any, allowed: Iterable[str]) -> str:
    """As `unknown`, for a key of a file: one that has its place elsewhere is answered with that place.

    'unknown key 'lr': this is training.learning_rate (or an axis of a grid) in the sweep file; allowed here: …'
    """
    names, typed = sorted(set(allowed)), str(key)[:LONGEST_VALUE]
    if synonyms.synonyms(typed, names) or (_near(typed, names) and not synonyms.is_key(typed)):
        return unknown(kind, str(key), names)
    hints = [f"this is {place}"] if (place := synonyms.place_of(typed)) else []
    hints += [remark] if (remark := synonyms.remark(typed)) else []
    return f"unknown {kind} {shown(key)}{': ' * bool(hints)}{'; '.join(hints)}; allowed here: {_listed(kind, names)}"


def _near(typed: str, names: Collection[str]) -> list[str]:
    """At most two names that differ from `typed` by a few letters, whatever their case."""
    by_lower = {name.lower(): name for name in names}
    return [by_lower[name] for name in difflib.get_close_matches(typed.lower(), by_lower, n=2, cutoff=0.6)]


def _listed(kind: str, names: Sequence[str]) -> str:
    """At most `MOST_NAMES` names, and where the others are listed."""
    if len(names) <= MOST_NAMES:
        return ", ".join(map(cut, names)) or "(none)"
    more = f"and {len(names) - MOST_NAMES} more" + (f" (`lmmcl list {kind}s`)" if kind in CATALOGUED else "")
    return ", ".join([*map(cut, names[:MOST_NAMES]), more])


def bad_setting(what: str, error: ValidationError, kind: type[BaseModel]) -> UserError:
    """The first problem of the settings of `what` (a mitigation, a recipe, a probe): what is wrong and what is allowed.

    'wise_ft.alpha: must be less than or equal to 1, not 2; allowed: 0 to 1'
    """
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    where = f"{what}.{place}" if place else what
    field = kind.model_fields.get(str(first["loc"][0])) if first["loc"] else None
    if field is not None and first["type"] == "literal_error" and isinstance(first["input"], str):
        return UserError(f"{where}: {unknown('value', first['input'], map(str, get_args(field.annotation)))}")
    span = _span(field.metadata) if field is not None else ""
    return UserError(f"{where}: {sentence(first)}{f'; allowed: {span}' if span else ''}")


def sentence(problem: Any) -> str:
    """One of pydantic's problems as a person reads it: what is expected, and what was given."""
    message, given = problem["msg"].removeprefix("Value error, "), problem["input"]
    if problem["type"] in ("missing", "value_error"):
        return FORMS.get(problem["type"], message)
    if problem["type"] == "too_short":
        least = problem["ctx"]["min_length"]
        message = f"at least {least} value{'s' if least > 1 else ''} expected"
    if problem["type"] == "literal_error" and isinstance(given, str):
        return unknown("value", given, re.findall(r"'([^']*)'", problem["ctx"]["expected"]))
    hint = (
        f", such as [{cut(str(given))}]" if problem["type"].startswith(("list", "tuple")) and _is_plain(given) else ""
    )
    message = message.replace("Input should be", "must be")
    return f"{FORMS.get(problem['type'], message)}{hint}, not {shown(given)}"


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _span(limits: Iterable[Any]) -> str:
    """`0 to 1`, `above 0, at most 1`: a field's limits in words; empty where it has none."""
    bounds = {
        name: value
        for limit in limits
        for name in ("ge", "gt", "le", "lt")
        if (value := getattr(limit, name, None)) is not None
    }
    if bounds.keys() == {"ge", "le"}:
        return f"{bounds['ge']} to {bounds['le']}"
    phrases = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    return ", ".join(f"{phrase} {bounds[name]}" for name, phrase in phrases.items() if name in bounds)


def explain(error: BaseException) -> str:
    """One line on what went wrong at the bottom of it: Ray wraps an error once for each process that it passes."""
    root: BaseException = error
    while isinstance(cause := getattr(root, "cause", None), BaseException) and cause is not root:
        root = cause
    return str(root) if isinstance(root, UserError) else mask(f"{type(root).__name__}: {root}")
