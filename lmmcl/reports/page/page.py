"""The sweep as one HTML file that needs no network: everything, plotly.js too, is written into it."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from lmmcl.atomic_files import write_text
from lmmcl.reports.page.page_data import page_data
from lmmcl.reports.results import SweepResults

FILES = "page_files"
SCRIPTS = (
    "data.js",
    "labels.js",
    "plots.js",
    "recommendation.js",
    "probes.js",
    "trial.js",
    "flips.js",
    "tables.js",
    "start.js",
)
"""In this order they are one script: each uses what those before it declare, and `start.js` draws everything."""


def write_page(results: SweepResults, path: Path, flips: Sequence[Mapping[str, Any]] = ()) -> None:
    """Write the page to `path` at once, making its folder; `flips` are questions to show (see `lmmcl.reports.flips`)."""
    write_text(path, page(results, flips))


def page(results: SweepResults, flips: Sequence[Mapping[str, Any]] = ()) -> str:
    """The page as text. Strings of the sweep reach the browser as JSON only and are set as text, never as markup."""
    from plotly.offline import get_plotlyjs

    parts = {
        "title": html.escape(results.name),
        "css": _template("page.css"),
        "js": script(),
        "plotly": get_plotlyjs(),
        "data": _for_script(page_data(results) | {"flips": list(flips)}),
    }
    # One pass, so that nothing which is filled in can hold a place of its own.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _template("page.html"))


def script() -> str:
    """What the page does, as one script whose names stay its own."""
    return '"use strict";\n(() => {\n' + "\n".join(map(_template, SCRIPTS)) + "})();\n"


def _for_script(data: Any) -> str:
    """JSON that no string of it can break out of: `</script>` and `<!--` have no `<` left to start with."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _template(name: str) -> str:
    return resources.files("lmmcl.reports.page").joinpath(FILES, name).read_text(encoding="utf-8")
