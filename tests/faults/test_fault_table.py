"""The table of faults: no two cells alike, kills from the first step to the last, and docs/faults.md lists what was played."""

from __future__ import annotations

from collections import Counter

import fault_table
import inline_cells
import store_cells
from fault_cells import MODES, PHASES, Cell

INLINE = [*inline_cells.cells(), *store_cells.cells()]
CELLS: list[Cell] = fault_table.every_cell()


def test_there_are_many_cells_and_no_two_are_alike() -> None:
    twins = [identity for identity, times in Counter(cell.identity for cell in CELLS).items() if times > 1]
    assert not twins
    assert len(CELLS) >= 120


def test_no_two_cells_do_the_same_under_two_names() -> None:
    """A deed at a point in a mode, whatever the cells are called; what is done between lives may differ."""
    deeds = Counter(
        (cell.mode, cell.store, cell.mlflow, *((s.point, s.number, s.deed, str(s.more)) for s in cell.strikes))
        for cell in INLINE
        if cell.strikes and not (cell.first or cell.then or cell.beside)
    )
    assert not [deed for deed, times in deeds.items() if times > 1]


def test_every_phase_is_struck_and_every_mode() -> None:
    inline = {cell.phase for cell in CELLS if cell.mode == "inline"}
    assert inline == set(PHASES)
    assert {cell.mode for cell in CELLS} == set(MODES)


def test_the_page_lists_every_cell_that_was_played_and_names_the_others() -> None:
    listed = {row[:4] for row in fault_table.listed()}
    assert len(listed) >= 120
    left = {cell.name for cell in CELLS if cell.identity not in listed}
    assert listed <= {cell.identity for cell in CELLS}
    assert left == set(fault_table.not_played())


def test_kills_are_spread_from_the_first_recorded_step_to_the_last() -> None:
    kills = {cell.identity for cell in CELLS if cell.kills}
    shares = [share for *identity, share in fault_table.listed() if tuple(identity) in kills]
    buckets = Counter(min(9, int(10 * share)) for share in shares)
    assert sorted(buckets) == list(range(10)), buckets
    assert len(shares) >= 60
