"""Runs in one process are disturbed in every phase: the scores stay, nothing that was finished is computed again.

The small choice is in the fast suite; `pytest -m faults tests/faults` plays every cell. LMMCL_FAULTS_RESULTS keeps what came of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import inline_cells
import pytest
import store_cells
from fault_cells import Cell
from fault_scenes import World, play

if TYPE_CHECKING:
    from conftest import Results

CELLS = [*inline_cells.cells(), *store_cells.cells()]
SMALL = {
    ("SIGKILL", "a checkpoint was just written"),
    ("SIGTERM", "update 17 of 36"),
    ("a byte changed", "weights that are evaluated next"),
}


@pytest.mark.timeout(600)  # seconds of work, minutes on a machine that others use
def test_a_small_choice_of_faults_is_survived(world: World, tmp_path: Path) -> None:
    chosen = [cell for cell in CELLS if (cell.kind, cell.place) in SMALL]
    assert len(chosen) == len(SMALL)
    for number, cell in enumerate(chosen):
        folder = tmp_path / str(number)
        folder.mkdir()
        play(cell, world, folder)


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_a_run_in_one_process_survives(cell: Cell, world: World, tmp_path: Path, results: Results) -> None:
    results.skip_played([cell])
    results.add(play(cell, world, tmp_path))
