"""Which image-text-to-text types of transformers walk, and why the others are refused: the table that docs/models.md shows.

`python -m models.walk_table` writes it into the page.
"""

from __future__ import annotations

import json
from pathlib import Path

HERE = Path(__file__).parents[1]
TABLE: dict[str, dict[str, str]] = json.loads((HERE / "golden" / "walks.json").read_text(encoding="utf-8"))
"""By type: `mlp` is the recipe of the second stage (`gate_up`, or `mlp` where there is no gate); `refused` says why not."""
PAGE = HERE.parent / "docs" / "models.md"
BEGIN, END = "<!-- walks: written by tests/models/walk_table.py -->\n", "<!-- end of walks -->\n"


def walking() -> list[str]:
    """The types that walk."""
    return [name for name, row in TABLE.items() if "mlp" in row]


def refused() -> list[str]:
    """The types that are refused before anything trains."""
    return [name for name, row in TABLE.items() if "refused" in row]


def markdown() -> str:
    """The table as the page has it."""
    rows = "".join(
        f"| `{name}` | `sa_proj`, `{row['mlp']}` | |\n" if "mlp" in row else f"| `{name}` | – | {row['refused']} |\n"
        for name, row in sorted(TABLE.items())
    )
    return f"{BEGIN}\n| type | walked with | refused because |\n|---|---|---|\n{rows}\n{END}"


def write() -> None:
    """Put the table into the page."""
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    PAGE.write_text(before + markdown() + after, encoding="utf-8")


if __name__ == "__main__":
    write()
