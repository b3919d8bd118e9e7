"""A table of plain text is what rich would draw: where its rows are put together here as well as where they are left to rich."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.box import ASCII, SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lmmcl.reports.tables.text_table import TextTable

LOOKS: list[dict[str, Any]] = [
    {"box": SIMPLE_HEAD},
    {
        "box": SIMPLE_HEAD,
        "padding": (0, 1, 0, 0),
        "pad_edge": False,
        "title_justify": "left",
        "caption_justify": "left",
    },
    {"box": None, "padding": (0, 2, 0, 0), "pad_edge": False},
    {"box": ASCII, "show_edge": False},
]
TEXT = st.text(st.sampled_from("ab12 ·±★界é\x1b\t[]"), max_size=12)


def filled(table: Table, rows: list[list[str]], columns: int) -> Table:
    for place in range(columns):
        justify = "right" if place % 2 else "left"
        table.add_column(Text(f"column\n{place}"), justify=justify, overflow="fold", min_width=3 * place)  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*map(Text, row), style="bold")
    return table


def drawn(table: Table, width: int, color_system: Any = None) -> str:
    screen = Console(width=width, file=io.StringIO(), color_system=color_system, force_terminal=bool(color_system))
    screen.print(table, soft_wrap=True)
    return screen.file.getvalue()  # type: ignore[attr-defined]


@settings(max_examples=150, deadline=None)
@given(data=st.data(), look=st.sampled_from(LOOKS), width=st.integers(5, 120), columns=st.integers(1, 4))
def test_it_is_drawn_as_rich_draws_it(data: st.DataObject, look: dict[str, Any], width: int, columns: int) -> None:
    rows = data.draw(st.lists(st.lists(TEXT, min_size=columns, max_size=columns), max_size=4))
    texts = {
        "title": data.draw(st.sampled_from(["", "large: 3 trials"])),
        "caption": data.draw(st.sampled_from(["", "one\ntwo"])),
    }
    own, richs = (filled(kind(**texts, **look), rows, columns) for kind in (TextTable, Table))
    assert drawn(own, width) == drawn(richs, width)


@pytest.mark.parametrize("look", LOOKS)
def test_many_rows_are_put_together_without_rich(look: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [[f"trial {number}", "★ 界" * (number % 3)] for number in range(50)]
    expected = drawn(filled(Table(**look), rows, 2), 80)
    lines, render = [], Console.render_lines
    monkeypatch.setattr(Console, "render_lines", lambda *given, **more: lines.append(1) or render(*given, **more))
    assert drawn(filled(TextTable(**look), rows, 2), 80) == expected
    assert len(lines) < len(rows)


def test_in_colours_it_is_left_to_rich() -> None:
    rows = [["a", "b"]]
    own, richs = (drawn(filled(kind(), rows, 2), 80, color_system="truecolor") for kind in (TextTable, Table))
    assert own == richs and "\x1b[1m" in own
