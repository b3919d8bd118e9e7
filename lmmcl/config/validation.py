"""The door through which YAML comes in: every refusal names the file, the place in it, what is allowed and the near match."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from lmmcl import synonyms
from lmmcl.errors import ITEM_TYPE, UserError, cut, no_such_file, sentence, shown
from lmmcl.yaml_text import parse_yaml

MOST_PROBLEMS = 20
"""Problems of one file that a message lists."""

ModelT = TypeVar("ModelT", bound=BaseModel)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; raises UserError if the file is missing, is not YAML or does not hold a mapping."""
    try:
        data = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(no_such_file(path), file=str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read: {error}", file=str(path)) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else None
        raise UserError(f"not valid YAML: {error.problem}", file=str(path), place=place) from error
    except (yaml.YAMLError, ValueError) as error:  # a control character; a date that is on no calendar
        raise UserError(f"not valid YAML: {str(error).splitlines()[0]}", file=str(path)) from error
    if not isinstance(data, dict):
        raise UserError("a mapping of settings is expected at the top", file=str(path))
    return data


def validate(model: type[ModelT], data: Any, *, file: str, place: str = "") -> ModelT:
    """`data` as a `model`; raises UserError that lists every problem with its place in the file."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise refusal(error, file=file, place=place) from error


def refusal(error: ValidationError, *, file: str, place: str = "") -> UserError:
    """A pydantic error as one message: a line for each problem, at most `MOST_PROBLEMS`."""
    errors = error.errors()
    problems = [(_place(place, _parts(problem)), sentence(problem)) for problem in errors[:MOST_PROBLEMS]]
    if len(errors) == 1:
        return UserError(problems[0][1], file=file, place=problems[0][0] or None)
    lines = [f"  {where}: {what}" for where, what in problems]
    lines += [f"  and {len(errors) - len(problems)} more problems"] if len(errors) > len(problems) else []
    return UserError("\n" + "\n".join(lines), file=file)


def _parts(problem: Any) -> tuple[str | int, ...]:
    """Pydantic's place of a problem, with the item of a list that is meant."""
    index = problem["ctx"]["index"] if problem["type"] == ITEM_TYPE else None
    return problem["loc"] if index is None else (*problem["loc"], index)


def _place(place: str, parts: Iterable[str | int]) -> str:
    return join(place, *(cut(part) if isinstance(part, str) else part for part in filter(_in_file, parts)))


def _in_file(part: str | int) -> bool:
    """Whether a part of pydantic's place stands in the file; `<list>` tells which of two forms was meant."""
    return not (isinstance(part, str) and (part.startswith("<") or part == "[key]"))


def join(place: str, *parts: str | int) -> str:
    """`grids`, 0, `recipe` → `grids[0].recipe`."""
    for part in parts:
        place = f"{place}[{part}]" if isinstance(part, int) else f"{place}.{part}" if place else str(part)
    return place


def apply_overrides(data: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """`data` changed by `path=value` pairs such as `training.epochs=2` or `grids[0].seed=[0,1]`; values are YAML.

    Raises UserError for a pair without `=`, and for a path through something that is not there.
    """
    for pair in overrides:
        path, equals, text = pair.partition("=")
        if not equals or not path:
            raise UserError(
                "an override has the form path=value, such as training.epochs=2", place=_place_of_override(pair)
            )
        parts = _dotted(path).split(".")
        try:
            value = parse_yaml(text)
        except (yaml.YAMLError, ValueError) as error:
            raise UserError(f"not valid YAML: {shown(text)}", place=_place_of_override(pair)) from error
        _set(data, parts, value, pair)
    return data


def _entries(name: str, count: int) -> str:
    """How many entries a list has, and which may be named: the first is 0."""
    if not count:
        return "no entries"
    return f"1 entry, {name}[0]" if count == 1 else f"{count} entries, {name}[0] to {name}[{count - 1}]"


def _set(data: Any, parts: list[str], value: Any, pair: str) -> None:
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(data, list):
            if not part.isdigit() or int(part) >= len(data):
                name = ".".join(parts[:depth])
                why = f"{name}[{part}] does not exist: {name} has {_entries(name, len(data))}"
                raise UserError(why, place=_place_of_override(pair))
            index: Any = int(part)
        elif isinstance(data, dict):
            index = part
            if not last:
                data.setdefault(index, {})
        else:
            raise UserError(
                f"{'.'.join(parts[:depth])} holds {shown(data)}, which has no {shown(part)}",
                place=_place_of_override(pair),
            )
        if last:
            data[index] = value
        else:
            data = data[index]


def from_override(error: UserError, overrides: Iterable[str]) -> UserError:
    """The error with `--set path=value` as its place where that is what set the wrong value or key; else the error itself."""
    pairs = tuple(reversed(tuple(overrides)))
    if error.place is None and error.message.startswith("\n"):  # several problems, a line each
        lines = [_with_override(line, pairs) for line in error.message.splitlines()]
        return type(error)("\n".join(lines), file=error.file)
    if (pair := _cause(error.place or "", error.message, pairs)) is None:
        return error
    is_place = _dotted(error.place or "") == _dotted(pair.partition("=")[0])
    inner = f"{error.place}: " if error.place and not is_place else ""
    return type(error)(f"{inner}{error.message}{_as_override(pair, error.message)}", place=_place_of_override(pair))


def _as_override(pair: str, message: str) -> str:
    """For an unknown key at the top that has its place elsewhere in the sweep file: the override that sets it."""
    key, _, value = pair.partition("=")
    path = synonyms.override_of(key) if message.startswith("unknown key") and "." not in key else ""
    return f"; write --set {path}={cut(value)}" if path else ""


def _with_override(line: str, pairs: Iterable[str]) -> str:
    """A line `  place: problem` with the override that caused it behind it."""
    place, _, message = line.strip().partition(": ")
    pair = _cause(place, message, pairs)
    return f"{line} ({_place_of_override(pair)})" if pair else line


def _cause(place: str, message: str, pairs: Iterable[str]) -> str | None:
    """The override that set the value at a place, or the key that a message about the place calls unknown."""
    where = _dotted(place)
    for pair in pairs:
        path = _dotted(pair.partition("=")[0])
        section, _, key = path.rpartition(".")
        is_key = section == where and message.startswith("unknown") and shown(key) in message
        if is_key or where == path or where.startswith(f"{path}."):
            return pair
    return None


def _dotted(path: str) -> str:
    """`grids[0].seed` → `grids.0.seed`."""
    return path.replace("[", ".").replace("]", "")


def _place_of_override(pair: str) -> str:
    return f"--set {cut(pair)}"
