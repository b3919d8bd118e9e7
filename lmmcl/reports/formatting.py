"""How a value is written for a reader: learning rates, parameters, bytes, times, points with their intervals."""

from __future__ import annotations

import json
import re
from typing import Any

from lmmcl.config.trial_names import rate as rate
from lmmcl.reports.results import Interval

LABELS = {
    "learning_rate": "lr",
    "target_forgetting": "target forg.",
    "held_out_forgetting": "held-out forg.",
    "trained_parameters": "trained",
    "checkpoint_bytes": "size on disk",
    "seconds": "time",
    "peak_memory_bytes": "peak memory",
}


def label(name: str) -> str:
    """A short heading for an axis, measure or cost."""
    return LABELS.get(name, name.replace("_", " "))


def axis_value(axis: str, value: Any) -> str:
    """A grid value as a reader writes it: `5e-6`, `sa_proj`, `–` for none."""
    if value is None:
        return "–"
    if isinstance(value, float) and not isinstance(value, bool):
        return rate(value) if axis.endswith("learning_rate") else f"{value:g}"
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, sort_keys=True, default=str)
    return str(value)


def points(value: float | None) -> str:
    """Signed percentage points: `+24.9`; `–` when not known."""
    return (
        "–" if value is None else f"{round(value, 1) + 0.0:+.1f}"
    )  # + 0.0: a loss too small to show is not shown as "-0.0"


def points_half(value: float | None, interval: Interval | None) -> str:
    """Points with half the width of the interval: `+24.9 ±1.2`."""
    if value is None or interval is None:
        return points(value)
    return f"{points(value)} ±{(interval[1] - interval[0]) / 2:.1f}"


def points_range(value: float | None, interval: Interval | None) -> str:
    """Points with both ends of the interval: `+24.9 [+23.6, +26.0]`."""
    if value is None or interval is None:
        return points(value)
    return f"{points(value)} [{points(interval[0])}, {points(interval[1])}]"


def plural(number: int, thing: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def spread(value: float | None) -> str:
    """A standard deviation in points: `1.2`."""
    return "–" if value is None else f"{value:.1f}"


def count(value: float | None) -> str:
    """A number of parameters: `818 M`, `7.62 B`."""
    return _scaled(value, 1000.0, ("", " K", " M", " B", " T"))


def size(value: float | None) -> str:
    """Bytes in decimal units, as disks and hubs count: `1.64 GB`."""
    return _scaled(value, 1000.0, (" B", " kB", " MB", " GB", " TB", " PB"))


def duration(seconds: float | None) -> str:
    """Seconds as `4.2 s`, `3m20s`, `2h05m`."""
    if seconds is None:
        return "–"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    return f"{minutes // 60}h{minutes % 60:02d}m"


def first_line(text: str, most: int = 200) -> str:
    """The first line with something in it, cut to `most` characters; the rest of a traceback is for the page."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= most else f"{line[: most - 1]}…"


def p_value(value: float) -> str:
    """A p-value to three digits; none is 0."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _scaled(value: float | None, base: float, units: tuple[str, ...]) -> str:
    if value is None:
        return "–"
    power = 0
    while abs(value) >= 999.5 and power < len(units) - 1:
        value, power = value / base, power + 1
    return f"{value:.3g}{units[power]}"


def escape_markdown(text: str) -> str:
    """Text that Markdown and the HTML within it show as it is; a cell is one line."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\n", " ")
    return re.sub(r"([\\|*_`\[\]])", r"\\\1", text)


def short_number(number: float) -> float:
    """A number with few digits for a file, but as many as it takes to be rounded to a tenth as the number itself is."""
    tenth, few = round(number, 1), float(f"{number:.5g}")  # a page has hundreds of thousands
    if round(few, 1) == tenth:
        return few
    few = float(f"{number:.8g}")
    return few if round(few, 1) == tenth else number
