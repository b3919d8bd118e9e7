"""Colours and markers of the figures: told apart by colour-blind readers, in grey print, and alike in page and picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lmmcl.reports.results import SweepResults, identity

BACKGROUND, BACKGROUND_AT_NIGHT = "#ffffff", "#14181d"
"""The backgrounds of the page: light, and dark."""
#: For words, on each background: a contrast of 3:1 at least, and far apart for readers with protanopia or deuteranopia too.
WORDS = ["#0042b8", "#d67a00", "#0d9d62", "#af7ea8", "#2394e8", "#6e4c07", "#2d295a", "#540719"]
WORDS_AT_NIGHT = ["#537ec7", "#f74c12", "#02db6e", "#cc7a90", "#5ddfff", "#fdf42c", "#8756fd", "#fcf6e0"]
#: For numbers: along a line through these, from small to large; lightness and the blue-yellow axis change together.
SCALE = [(68, 1, 84), (50, 60, 220), (20, 140, 190), (214, 122, 0)]
SCALE_AT_NIGHT = [(120, 110, 255), (214, 85, 160), (250, 150, 80), (240, 249, 60)]
NONE, NONE_AT_NIGHT = "#767676", "#9aa3ad"
"""Of a trial without a number on the axis."""
DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"]
"""Dashes of plotly: what colour tells of lines, these tell too."""
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


def colours(values: Sequence[Any], *, night: bool = False) -> dict[str, str]:
    """A colour for each value, by its identity: numbers along a scale, words from a set; `night` is for a dark background."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    ordered = len(numbers) > 1 and len(numbers) == len([value for value in values if value is not None])
    words, scale = (WORDS_AT_NIGHT, SCALE_AT_NIGHT) if night else (WORDS, SCALE)
    if not ordered:
        return {identity(value): words[place % len(words)] for place, value in enumerate(values)}
    parts = {identity(value): place / (len(numbers) - 1) for place, value in enumerate(sorted(numbers))}
    by_value = {name: along_scale(part, scale) for name, part in parts.items()}
    return {**by_value, identity(None): NONE_AT_NIGHT if night else NONE} if len(numbers) < len(values) else by_value


def markers(values: Sequence[Any]) -> dict[str, tuple[str, str]]:
    """A (plotly symbol, matplotlib marker) for each value, by its identity."""
    return {identity(value): MARKERS[place % len(MARKERS)] for place, value in enumerate(values)}


def along_scale(place: float, scale: Sequence[tuple[int, int, int]] = SCALE) -> str:
    """The colour at `place` (0 to 1) of a scale, as `#rrggbb`."""
    position = min(max(place, 0.0), 1.0) * (len(scale) - 1)
    left = min(int(position), len(scale) - 2)
    part = position - left
    mixed = (round(low + part * (high - low)) for low, high in zip(scale[left], scale[left + 1], strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def _first(wanted: Sequence[str], varying: Sequence[str], otherwise: str) -> str:
    return next((axis for axis in [*wanted, *varying] if axis in varying), otherwise)
