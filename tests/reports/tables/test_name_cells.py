"""Names of trials in tables of any width."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from lmmcl.reports.tables.name_cells import name_cells

NAMES = [f"{recipe} · lr 1e-3 · llava-onevision-7b · s0" for recipe in ("sa_proj", "gate_up", "[/mlp]\x1b[2J")]


def drawn(width: int, names: list[str] = NAMES) -> str:
    heading, cells = name_cells(names)
    table = Table(box=None)
    for column in (heading, "result"):
        table.add_column(column)
    for cell in cells:
        table.add_row(cell, "learning +12.3, held-out -5.0")
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_names_are_whole_where_there_is_room() -> None:
    assert NAMES[0] in drawn(120) and "all:" not in drawn(120)


@pytest.mark.parametrize("width", [48, 60, 70])
def test_in_a_narrow_terminal_the_shared_part_moves_to_the_heading_and_the_rest_stays_whole(width: int) -> None:
    text = drawn(width)
    assert all(recipe in text for recipe in ("sa_proj", "gate_up", "[/mlp]\\x1b[2J"))
    assert "all:" in text and text.count("s0") == 1 and "…" not in text
    assert all(len(line) <= width for line in text.splitlines())


def test_the_part_that_differs_is_folded_and_never_cut() -> None:
    names = [f"a-recipe-with-a-name-that-is-very-long-{end} · lr 1e-3 · s0" for end in ("one", "two")]
    text = "".join(line[:20].strip() for line in drawn(50, names).splitlines())
    assert text.count("-one") == text.count("-two") == 1 and "…" not in text


def test_a_single_name_is_never_emptied() -> None:
    assert "sa_proj" in drawn(45, NAMES[:1]).replace("\n", "")
