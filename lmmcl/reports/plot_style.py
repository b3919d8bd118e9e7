"""Colours and markers of the figures: told apart by colour-blind readers, in grey print, and alike in page and picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lmmcl.reports.results import SweepResults, identity

#: Okabe and Ito (2008), without the yellow that white paper swallows; for words.
WORDS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#4d4d4d", "#8c510a"]
#: Viridis without its lightest end; for numbers, so that darker is smaller.
SCALE = [(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (190, 200, 40)]
#: (plotly symbol, matplotlib marker) that stay apart when small.
MARKERS = [
    ("circle", "o"),
    ("square", "s"),
    ("diamond", "D"),
    ("triangle-up", "^"),
    ("triangle-down", "v"),
    ("star", "*"),
    ("cross", "P"),
    ("x", "X"),
    ("hexagon", "h"),
    ("pentagon", "p"),
    ("triangle-right", ">"),
    ("triangle-left", "<"),
]


def colour_axis(results: SweepResults) -> str:
    """The axis that colour stands for: the learning rate, or where there is one only, the first other axis that varies."""
    return _first(("learning_rate", "mitigation", "model", "order"), results.varying(), "learning_rate")


def marker_axis(results: SweepResults) -> str:
    """The axis that the marker stands for: the recipe, or where there is one only, the first axis left that varies."""
    taken = colour_axis(results)
    left = [axis for axis in results.varying() if axis != taken]
    return _first(("recipe", "model", "mitigation", "order"), left, "recipe")


def colours(values: Sequence[Any]) -> dict[str, str]:
    """A colour for each value, by its identity: numbers along a scale, words from a set."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    ordered = len(numbers) > 1 and len(numbers) == len([value for value in values if value is not None])
    if not ordered:
        return {identity(value): WORDS[place % len(WORDS)] for place, value in enumerate(values)}
    by_value = {identity(value): along_scale(place / (len(numbers) - 1)) for place, value in enumerate(sorted(numbers))}
    return {**by_value, identity(None): "#7f7f7f"} if len(numbers) < len(values) else by_value


def markers(values: Sequence[Any]) -> dict[str, tuple[str, str]]:
    """A (plotly symbol, matplotlib marker) for each value, by its identity."""
    return {identity(value): MARKERS[place % len(MARKERS)] for place, value in enumerate(values)}


def along_scale(place: float) -> str:
    """The colour at `place` (0 to 1) of the scale, as `#rrggbb`."""
    position = min(max(place, 0.0), 1.0) * (len(SCALE) - 1)
    left = min(int(position), len(SCALE) - 2)
    part = position - left
    mixed = (round(low + part * (high - low)) for low, high in zip(SCALE[left], SCALE[left + 1], strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def _first(wanted: Sequence[str], varying: Sequence[str], otherwise: str) -> str:
    return next((axis for axis in [*wanted, *varying] if axis in varying), otherwise)
