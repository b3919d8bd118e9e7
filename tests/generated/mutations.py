"""Changes of valid inputs, drawn by hypothesis: most are near what was there, some are what no parser should trip over."""

from __future__ import annotations

import copy
import datetime
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

SEED = 20_240
SECONDS = 20.0
"""Of one input, on a machine that others use too: an input that takes longer counts as a hang."""

NUMBERS = (0, 1, -1, 2, 7, 1000, 10**7, 10**18, 10**400, 0.5, 1e-5, 5e-324, 1.0000000001, 1e308, math.inf, math.nan)
TEXTS = (
    "", " ", "none", "true", "~", "1", "1e-4", "{}", "*", ".", "..", "a/b", "a=b", "x: y", "\0", "é", "\u202e", "😀", "x" * 5000,
    "%s", "{question}", "{0}", "{", "\n", "nan", "$HOME", "-", "--", "tiny-onevision", "main", "birds", "1-2", "?", "[",
)  # fmt: skip
OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], [None], {"": ""}, {"a": {"b": [1]}}, [1, "1"])
OF_YAML: tuple[Any, ...] = (datetime.date(2001, 1, 1), b"x", {1: 2}, {None: 1}, {True: False}, {1.5: []})

Path = tuple[Any, ...]

SIZES = [
    pytest.param(80, id="some"),
    pytest.param(10_000, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(14_400)]),
]
"""Seconds of each kind in the fast suite; ten thousand on request."""


class Hang(Exception):
    """An input that took too long."""


@dataclass
class Tally:
    """How many inputs were tried, and how many of them came past the parser."""

    tried: int = 0
    accepted: int = 0

    def check(self, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Print the share, and hold it to a half."""
        with capsys.disabled():
            print(f"\n{kind}: {self.tried} inputs, {self.accepted / self.tried:.0%} past the parser")
        assert self.accepted >= self.tried / 2, f"{kind}: too many inputs end at the parser"


def explore(body: Callable[[Any], bool], inputs: st.SearchStrategy[Any], examples: int, tally: Tally) -> None:
    """Hand `examples` inputs to `body`, which says whether one came past the parser; the same ones each time."""

    @seed(SEED)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(inputs)
    def each(value: Any) -> None:
        tally.tried += 1
        with time_limit():
            tally.accepted += body(value)

    each()


@contextmanager
def time_limit(seconds: float = SECONDS) -> Iterator[None]:
    """Raises Hang in what takes longer; the timer that pytest's own limit has set continues."""

    def stop(*_: Any) -> None:
        raise Hang(f"took more than {seconds:g} s")

    started, handler = time.monotonic(), signal.signal(signal.SIGALRM, stop)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(0.1, left - (time.monotonic() - started)))


def places(node: Any, path: Path = ()) -> list[Path]:
    """The path of every value below a node."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [place for key, value in inner for place in [(*path, key), *places(value, (*path, key))]]


def at(node: Any, path: Path) -> Any:
    """The value at a path."""
    for key in path:
        node = node[key]
    return node


def seen_values(files: Sequence[Any]) -> dict[Any, list[Any]]:
    """By the name of a setting, the values that it has anywhere in these files."""
    seen: dict[Any, dict[str, Any]] = {}
    for file in files:
        for path in places(file):
            name = path[-1] if isinstance(path[-1], str) else (path[-2], "item") if len(path) > 1 else None
            seen.setdefault(name, {})[repr(at(file, path))] = at(file, path)
    return {name: list(values.values()) for name, values in seen.items()}


def wild_values(others: Sequence[Any] = OTHERS) -> st.SearchStrategy[Any]:
    """What nobody meant to write there."""
    return st.sampled_from(NUMBERS) | st.sampled_from(TEXTS) | st.sampled_from(list(others)) | st.text(max_size=6)


@st.composite
def near(draw: st.DrawFn, value: Any) -> Any:
    """A value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return draw(st.sampled_from([value + 1, value - 1, value * 2, value // 2, 1, 10 * value]))
    if isinstance(value, float):
        return draw(st.sampled_from([value * 2, value / 2, value * 10, value / 10, float(round(value, 1))]))
    if isinstance(value, list) and value:
        return draw(st.sampled_from([value[::-1], value[:1], value[1:], [*value, value[0]], value[-1:]]))
    if isinstance(value, dict) and value:
        gone = draw(st.sampled_from(list(value)))
        return {key: inner for key, inner in value.items() if key != gone}
    if isinstance(value, str):
        return draw(st.sampled_from([value + "x", value[:-1], value.upper(), f" {value}", value]))
    return value


@st.composite
def mutated(
    draw: st.DrawFn,
    bases: Sequence[Any],
    seen: Mapping[Any, Sequence[Any]],
    *,
    additions: Mapping[str, Sequence[str]] = {},
    wild: Sequence[Any] = OTHERS,
    most: int = 3,
) -> Any:
    """One of `bases` with up to `most` values changed: mostly to one that the same setting has in another file.

    `additions` are, by the name of a section, the settings that it may have.
    """
    node = copy.deepcopy(draw(st.sampled_from(list(bases))))
    for _ in range(draw(st.sampled_from([1, 1, *range(1, most + 1)]))):
        paths = places(node)
        if not paths:
            break
        path = draw(st.sampled_from(paths))
        parent, last = at(node, path[:-1]), path[-1]
        name = last if isinstance(last, str) else (path[-2], "item") if len(path) > 1 else None
        kind = draw(st.sampled_from(["same"] * 7 + ["near"] * 4 + ["add"] * 3 + ["drop", "wild"]))
        if kind == "same":
            parent[last] = copy.deepcopy(draw(st.sampled_from(list(seen.get(name, [parent[last]])))))
        elif kind == "near":
            parent[last] = draw(near(parent[last]))
        elif kind == "add":
            _add(draw, node, seen, additions)
        elif kind == "drop":
            del parent[last]
        else:
            parent[last] = copy.deepcopy(draw(wild_values(wild)))  # it may be changed next
    return node


def _add(draw: st.DrawFn, node: Any, seen: Mapping[Any, Sequence[Any]], additions: Mapping[str, Sequence[str]]) -> None:
    """One more setting in a section, with a value that it has elsewhere."""
    sections = [path for path in [(), *places(node)] if isinstance(at(node, path), dict)]
    path = draw(st.sampled_from(sections))
    names = [
        name for name in additions.get(next((p for p in path[::-1] if isinstance(p, str)), ""), ()) if name in seen
    ]
    if names:
        name = draw(st.sampled_from(names))
        at(node, path)[name] = copy.deepcopy(draw(st.sampled_from(list(seen[name]))))
