"""Errors of input: one message with the place, what is wrong, what is allowed, the nearest name and the remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, get_args

from lmmcl import synonyms
from lmmcl.masking import mask

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import BaseModel, ValidationError

MOST_NAMES = 10
"""Allowed names that a message lists: a store may hold thousands of checkpoints. Keys of a section are few and listed in full."""
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
    "model_type": "a mapping of settings is expected",
    "string_type": "a string is expected",
    **dict.fromkeys(("float_type", "float_parsing"), "a number is expected"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number is expected"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false is expected"),
    "string_pattern_mismatch": "must begin with a letter or digit and hold only letters, digits, _ . and - (such as my_sweep)",
}
"""Pydantic's problems in the words of YAML, by their type."""
BOUNDS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
"""Pydantic's types of problems with a number outside its limits."""
TRUTH = "(YAML reads an unquoted yes or on as true, no or off as false)"
"""Where true or false came from, when neither was typed."""
ITEM_TYPE = "item"
"""The type of our own errors about a value, whose `index` is that of an item in a list (None: no list)."""


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


def unknown(kind: str, word: str, allowed: Iterable[str], *, most: int = MOST_NAMES) -> str:
    """'unknown recipe 'sa_prj'; did you mean 'sa_proj'? allowed: full, gate_up, …'; `most` names are listed."""
    names, typed = sorted(set(allowed)), str(word)[: 2 * LONGEST_VALUE]
    near = synonyms.synonyms(typed, names)[:2] or near_names(typed, names)
    hint = f"; did you mean {' or '.join(repr(name) for name in near)}?" if near else ";"
    remark = f" ({known})" if (known := synonyms.remark(typed)) else ""
    return f"unknown {kind} {shown(word)}{hint}{remark if near else ''} allowed: {_listed(kind, names, most)}"


def unknown_key(kind: str, key: Any, allowed: Iterable[str]) -> str:
    """As `unknown`, for a key of a file: one that has its place elsewhere is answered with that place.

    'unknown key 'lr': this is training.learning_rate (or an axis of a grid) in the sweep file'
    """
    names, typed = sorted(set(allowed)), str(key)[:LONGEST_VALUE]
    if synonyms.synonyms(typed, names) or (near_names(typed, names) and not synonyms.is_key(typed)):
        return unknown(kind, str(key), names, most=len(names))
    hints = [hint for hint in (synonyms.place_of(typed), synonyms.remark(typed)) if hint]
    if hints:
        return f"unknown {kind} {shown(key)}: {'; '.join(hints)}"
    return f"unknown {kind} {shown(key)}; allowed here: {_listed(kind, names, len(names))}"


def no_such_file(path: Path) -> str:
    """'no such file; did you mean sweeps/small.yaml?': the nearest names of the same kind in the same folder."""
    there = [other.name for other in path.parent.glob(f"*{path.suffix}")] if path.parent.is_dir() else []
    near = [str(path.with_name(name)) for name in near_names(path.name, there)]
    return f"no such file; did you mean {' or '.join(near)}?" if near else "no such file"


def near_names(typed: str, names: Collection[str]) -> list[str]:
    """At most two names that differ from `typed` by a few letters, whatever their case."""
    by_lower = {name.lower(): name for name in names}
    return [by_lower[name] for name in difflib.get_close_matches(typed.lower(), by_lower, n=2, cutoff=0.6)]


def _listed(kind: str, names: Sequence[str], most: int) -> str:
    """At most `most` names, and where the others are listed. One more takes no more room than saying so."""
    if len(names) <= most + 1:
        return ", ".join(map(cut, names)) or "(none)"
    more = f"and {len(names) - most} more" + (f" (`lmmcl list {kind}s`)" if kind in CATALOGUED else "")
    return ", ".join([*map(cut, names[:most]), more])


def bad_setting(what: str, error: ValidationError, kind: type[BaseModel]) -> UserError:
    """The first problem of the settings of `what` (a mitigation, a recipe, a probe): what is wrong and what is allowed.

    'wise_ft.alpha: must be between 0 and 1, not 2'
    """
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    where = f"{what}.{place}" if place else what
    field = kind.model_fields.get(str(first["loc"][0])) if first["loc"] else None
    if field is not None and first["type"] == "literal_error" and isinstance(first["input"], str):
        return UserError(f"{where}: {unknown('value', first['input'], map(str, get_args(field.annotation)))}")
    limits = _limits(field.metadata) if field is not None and len(first["loc"]) == 1 else {}
    if first["type"] in BOUNDS:
        both = f"must be {_span(limits)}, not {shown(first['input'])}"
        return UserError(f"{where}: {both if len(limits) > 1 else sentence(first)}")
    return UserError(f"{where}: {sentence(first)}{f'; allowed: {_span(limits)}' if limits else ''}")


def sentence(problem: Any) -> str:
    """One of pydantic's problems as a person reads it: what is expected, and what was given."""
    message, value = problem["msg"].removeprefix("Value error, "), problem["input"]
    if problem["type"] in ("missing", "value_error", ITEM_TYPE):
        return FORMS.get(problem["type"], message)
    if problem["type"] == "too_short":
        least = problem["ctx"]["min_length"]
        message = f"must list at least {'one value' if least == 1 else f'{least} values'}"
    if problem["type"] == "literal_error" and isinstance(value, str):
        return unknown("value", value, re.findall(r"'([^']*)'", problem["ctx"]["expected"]))
    hint = (
        f", such as [{cut(str(value))}]" if problem["type"].startswith(("list", "tuple")) and _is_plain(value) else ""
    )
    message = message.replace("Input should be", "must be")
    text = f"{str(value).lower()} {TRUTH}" if isinstance(value, bool) else shown(value)
    return f"{FORMS.get(problem['type'], message)}{hint}, not {text}"


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _limits(metadata: Iterable[Any]) -> dict[str, Any]:
    """A field's limits by pydantic's short names of them: `{"gt": 0, "le": 1}`."""
    return {
        name: value
        for limit in metadata
        for name in ("ge", "gt", "le", "lt")
        if (value := getattr(limit, name, None)) is not None
    }


def _span(limits: Mapping[str, Any]) -> str:
    """`between 0 and 1`, `above 0 and at most 1`: a field's limits in words."""
    if limits.keys() == {"ge", "le"}:
        return f"between {limits['ge']} and {limits['le']}"
    phrases = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    return " and ".join(f"{phrase} {limits[name]}" for name, phrase in phrases.items() if name in limits)


def explain(error: BaseException) -> str:
    """One line on what went wrong at the bottom of it: Ray wraps an error once for each process that it passes."""
    root: BaseException = error
    while isinstance(cause := getattr(root, "cause", None), BaseException) and cause is not root:
        root = cause
    return str(root) if isinstance(root, UserError) else mask(f"{type(root).__name__}: {root}")
