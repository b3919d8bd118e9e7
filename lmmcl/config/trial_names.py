"""Names of trials: the one form in which they are written, and the trials that a typed part of a name means."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar, overload

from lmmcl.errors import MOST_NAMES, UserError, shown, unknown

SEPARATOR = " · "
_BETWEEN = re.compile(r"\s*·\s*|\s+-\s+")  # a terminal that is not UTF-8 shows the dot as a dash
_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d*)?(?:e[+-]?\d+)?(?![\w.])")
_SEED = re.compile(r"s\d+")


class Named(Protocol):
    """What has a trial's name and key."""

    @property
    def name(self) -> str: ...
    @property
    def key(self) -> str: ...


T = TypeVar("T", bound=Named)


def rate(value: float) -> str:
    """A learning rate with no idle digits: `1e-3`, `2.5e-6`, `0`."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits, exponent = f"{value:.5e}".split("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"


def name_part(axis: str, value: Any) -> str | None:
    """What an axis adds to a trial's name: `sa_proj`, `lr 1e-3`, `epochs 2`, `s0`; None for no value."""
    if value is None:
        return None
    if axis in ("model", "recipe", "mitigation", "order"):
        return str(value)
    if axis == "learning_rate":
        return f"lr {rate(value)}"
    if axis == "seed":
        return f"s{value}"
    if isinstance(value, dict | list | tuple):
        return f"{axis} {json.dumps(value, sort_keys=True, default=str)}"
    return f"{axis} {value:g}" if isinstance(value, float) else f"{axis} {value}"


def without_seed(name: str) -> str:
    """The name of the grid point: that of the trial without its last part, the seed."""
    before, separator, last = name.rpartition(SEPARATOR)
    return before if separator and _SEED.fullmatch(last) else name


def short_names(names: Sequence[str]) -> list[str]:
    """Each name without the parts that all of them share; whole where nothing else is left."""
    shared = shared_parts(names)
    kept = [SEPARATOR.join(part for part in name.split(SEPARATOR) if part not in shared) for name in names]
    return [short or name for short, name in zip(kept, names, strict=True)]


def shared_parts(names: Sequence[str]) -> list[str]:
    """The parts that all of several names share, as they stand in the first."""
    if len(names) < 2:
        return []
    others = [set(name.split(SEPARATOR)) for name in names[1:]]
    return [part for part in names[0].split(SEPARATOR) if all(part in other for other in others)]


def find_seeds(wanted: str, trials: Sequence[T], file: str | None = None) -> list[T]:
    """The trials that `wanted` means: one, or all seeds of one grid point where it names no seed.

    `wanted` is a key or the beginning of one, a name, or parts of a name in any order (`sa_proj · lr 1e-3`) as far as they set
    the trial apart. Raises UserError with the near ones.
    """
    hits = _matches(wanted, trials)
    if not hits:
        raise UserError(_none(wanted, trials), file=file)
    if len({trial.key for trial in hits}) == 1:
        return hits[:1]
    named_key = any(trial.key.startswith(wanted) for trial in hits)
    if named_key or len({without_seed(trial.name) for trial in hits}) > 1:
        raise _ambiguous(wanted, hits, file)
    return hits


@overload
def find_one(wanted: str, trials: Sequence[T], file: str | None = None) -> T: ...
@overload
def find_one(wanted: str, trials: Sequence[T], file: str | None = None, *, missing_ok: bool) -> T | None: ...
def find_one(wanted: str, trials: Sequence[T], file: str | None = None, *, missing_ok: bool = False) -> T | None:
    """The one trial that `wanted` means (see `find_seeds`); raises UserError for several seeds of a grid point as well.

    With `missing_ok`, None where no trial fits.
    """
    if missing_ok and not _matches(wanted, trials):
        return None
    hits = find_seeds(wanted, trials, file)
    if len(hits) > 1:
        raise _ambiguous(wanted, hits, file)
    return hits[0]


def _matches(wanted: str, trials: Sequence[T]) -> list[T]:
    """The closest kind of match that some trial has."""
    exact = [trial for trial in trials if wanted in (trial.name, trial.key)]
    if exact:
        return exact
    named = [(trial, _parts(trial.name)) for trial in trials]
    known = frozenset[str]().union(*(parts for _, parts in named))
    asked = frozenset(_whole(part, known) for part in _parts(wanted))
    shared = frozenset.intersection(*(parts for _, parts in named)) if len(named) > 1 else frozenset()
    kinds: list[Callable[[T, frozenset[str]], bool]] = [
        lambda trial, parts: asked == parts,
        lambda trial, parts: _sets_apart(asked, parts, shared),
        lambda trial, parts: trial.key.startswith(wanted),
        lambda trial, parts: bool(asked) and asked <= parts,
        lambda trial, parts: bool(asked) and all(any(_has_words(part, word) for part in parts) for word in asked),
        lambda trial, parts: bool(asked) and all(any(word in part for part in parts) for word in asked),
    ]
    for fits in kinds:
        if matches := [trial for trial, parts in named if fits(trial, parts)]:
            return matches
    return []


def _sets_apart(asked: frozenset[str], parts: frozenset[str], shared: frozenset[str]) -> bool:
    """Whether `asked` is the short name of a report: all that differs between trials, the seed aside where it names none."""
    differs = parts - shared
    if not any(_SEED.fullmatch(part) for part in asked):
        differs = frozenset(part for part in differs if not _SEED.fullmatch(part))
    return bool(differs) and differs <= asked <= parts


def _whole(asked: str, known: frozenset[str]) -> str:
    """The only part that holds these words: a table's cell says `1e-3` for `lr 1e-3`."""
    holders = [part for part in known if _has_words(part, asked)]
    return holders[0] if len(holders) == 1 and asked not in known else asked


def _has_words(part: str, asked: str) -> bool:
    return f" {asked} " in f" {part} "


def _parts(name: str) -> frozenset[str]:
    """The parts of a name in a form in which equal ones are equal: `learning_rate=0.001` and `lr 1e-3`, `seed 0` and `s0`."""
    return frozenset(form for word in _BETWEEN.split(name) if (form := _form(word)))


def _form(part: str) -> str:
    text = " ".join(part.casefold().split())
    if text in ("–", "none"):  # what a table and MLflow show where a trial has no mitigation
        return ""
    text = re.sub(r"^(\w+) ?[=:] ?(\S+)$", r"\1 \2", text)
    text = re.sub(r"^learning[_ ]rate\b", "lr", text)
    text = re.sub(r"^seed (\d+)$", r"s\1", text)
    return _NUMBER.sub(lambda match: f"{float(match[0]):g}", text).replace("_", " ")


def _ambiguous(wanted: str, hits: Iterable[Named], file: str | None) -> UserError:
    listed = [f"{trial.name} ({trial.key})" for trial in hits]
    more = [f"and {len(listed) - MOST_NAMES} more"] if len(listed) > MOST_NAMES else []
    return UserError(
        f"trial {shown(wanted)} is ambiguous: it matches {', '.join([*listed[:MOST_NAMES], *more])}. "
        "Add a part of the name in which they differ, or more characters of the key",
        file=file,
    )


def _none(wanted: str, trials: Sequence[Named]) -> str:
    """What no trial has of a name: a single part of it, where that is wrong."""
    parts = {_form(word): word for trial in trials for word in _BETWEEN.split(trial.name)}
    asked = [word for word in _BETWEEN.split(wanted) if _form(word)]
    wrong = [word for word in asked if not any(_form(word) in part for part in parts)]
    if len(asked) > 1 and wrong:
        return f"no trial is called {shown(wanted)}: {unknown('part of a name', wrong[0], parts.values())}"
    names = [trial.name for trial in trials]
    if not wrong and asked:
        return f"no trial has all parts of {shown(wanted)}; {unknown('trial', wanted, names)}"
    near = unknown("trial", wanted, names)
    return near if "did you mean" in near else near + near_part(wanted, parts.values())


def near_part(wanted: str, parts: Iterable[str]) -> str:
    """A part that is nearly what was typed, which no whole name is."""
    near = unknown("part", wanted, parts)
    hint = near.partition("did you mean ")[2].partition("?")[0]
    return f" (did you mean the one with {hint}?)" if hint else ""
