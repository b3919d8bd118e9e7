"""A small table beside the main one, as the terminal and Markdown show it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rich import box
from rich.markup import escape
from rich.table import Table

from lmmcl.reports import formatting


@dataclass(frozen=True)
class SmallTable:
    """Rows of cells under `heads`, with a note below; columns whose position is in `texts` are left-aligned, others are numbers."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str
    texts: Collection[int] = (0,)

    def terminal(self) -> Table | None:
        """For the terminal; None without rows."""
        if not self.rows:
            return None
        table = Table(title=escape(self.title), caption=escape(self.note), title_justify="left")
        table.box, table.caption_justify = box.SIMPLE_HEAD, "left"
        for number, head in enumerate(self.heads):
            table.add_column(head, justify="left" if number in self.texts else "right")
        for row in self.rows:
            table.add_row(*map(escape, row))
        return table

    def markdown(self) -> str:
        """The same as Markdown; empty without rows."""
        if not self.rows:
            return ""
        rule = "|".join("---" if number in self.texts else "---:" for number in range(len(self.heads)))
        lines = [f"### {self.title}", "", _line(self.heads), f"|{rule}|"]
        lines += [_line([*map(formatting.escape_markdown, row)]) for row in self.rows]
        return "\n".join([*lines, "", self.note, ""])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
