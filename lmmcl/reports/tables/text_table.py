"""A rich table of plain text, whose rows are put together here where none is folded or coloured: rich takes a second for 1,000."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.table import Table


class TextTable(Table):
    """Drawn as rich draws it, to the byte.

    Cells and headings are `Text`, or something else with a `plain` text that is shown where there is room for it. Without lines
    between rows, padding above or below them, ends of sections and footers.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = self._widths_of_text() if console.color_system is None else []
        if widths and self._length(widths) <= options.max_width:
            yield from self._drawn_here(console, options, widths)
        else:
            yield from super().__rich_console__(console, options)

    def _widths_of_text(self) -> list[int]:
        """The characters that each column takes; empty where a text has more than one plain line, or too little room."""
        widths = []
        for column in self.columns:
            texts = [*column.header.plain.split("\n"), *_texts(column.cells)]  # type: ignore[union-attr]
            if not all(text.isprintable() and text.strip() == text for text in texts):
                return []
            needed = max(column.min_width or 0, *map(_length, texts))
            widths.append(column.width or needed)
            if needed > widths[-1]:
                return []
        return widths

    def _paddings(self) -> list[tuple[int, int]]:
        """Blanks to the left and the right of each column's text."""
        _, right, _, left = self.padding
        paddings = [(left, right) for _ in self.columns]
        if paddings and not self.pad_edge:
            paddings[0] = (0, paddings[0][1])
            paddings[-1] = (paddings[-1][0], 0)
        return paddings

    def _length(self, widths: list[int]) -> int:
        between = len(widths) - 1 + (2 if self.show_edge else 0) if self.box else 0
        return sum(widths) + sum(map(sum, self._paddings())) + between

    def _drawn_here(self, console: Console, options: ConsoleOptions, widths: list[int]) -> Iterator[Segment]:
        """What stands above and below the rows as rich draws it, and the rows between."""
        above = self._around(console, options, widths, "")
        all_around = self._around(console, options, widths, self.caption)
        rows_at = len(above) - (1 if self.box and self.show_edge else 0)  # the lower edge, which is blank
        for line in [*all_around[:rows_at], *self._lines(console, options, widths), *all_around[rows_at:]]:
            yield Segment(line)
            yield Segment.line()

    def _around(self, console: Console, options: ConsoleOptions, widths: list[int], caption: Any) -> list[str]:
        empty = copy.copy(self)
        empty.rows, empty.caption, empty.columns = [], caption, [column.copy() for column in self.columns]
        for column, width in zip(empty.columns, widths, strict=True):
            column.width = width
        segments = super(TextTable, empty).__rich_console__(console, options)
        return "".join(segment.text for segment in segments).removesuffix("\n").split("\n")  # type: ignore[union-attr]

    def _lines(self, console: Console, options: ConsoleOptions, widths: list[int]) -> Iterator[str]:
        box = self.box.substitute(options, safe=console.safe_box) if self.box else None
        between = box.mid_vertical if box else ""
        left, right = (box.mid_left, box.mid_right) if box and self.show_edge else ("", "")
        columns = []
        for column, width, (before, after) in zip(self.columns, widths, self._paddings(), strict=True):
            filled = [_filled(text, width, to_the_right=column.justify == "right") for text in _texts(column.cells)]
            columns.append([f"{' ' * before}{text}{' ' * after}" for text in filled])
        return (f"{left}{between.join(cells)}{right}" for cells in zip(*columns, strict=True))


def _texts(cells: Iterable[Any]) -> list[str]:
    return [cell.plain for cell in cells]


def _length(text: str) -> int:
    return len(text) if text.isascii() else cell_len(text)


def _filled(text: str, width: int, *, to_the_right: bool) -> str:
    blank = " " * (width - _length(text))
    return blank + text if to_the_right else text + blank
