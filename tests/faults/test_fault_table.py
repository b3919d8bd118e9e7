"""The table of faults: no two cells alike, kills from the first step to the last; what the judge sees; the page."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import fault_table
import inline_cells
import pytest
import store_cells
from fault_cells import MODES, PHASES, Cell
from fault_judge import _made_again, _repeated
from fault_lives import Ended
from fault_scenes import UPDATES, World

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


def life(folder: Path, *events: dict[str, object]) -> Ended:
    """A life that logged these events."""
    folder.mkdir()
    (folder / "log").write_text("".join(json.dumps(event) + "\n" for event in events))
    return Ended(0, "", 0.0, folder)


def test_the_judge_sees_a_recorded_step_that_begins_again(tmp_path: Path) -> None:
    begins, records = {"point": "writes", "key": "a"}, {"point": "published", "key": "a"}
    asks = {"point": "asks", "key": "a"}
    once = life(tmp_path / "once", asks, begins, records)
    assert not list(_repeated([once], [set()]))
    within = life(tmp_path / "within", asks, begins, records, asks)
    assert list(_repeated([within], [set()])) == ["a"]
    after = life(tmp_path / "after", begins)
    assert list(_repeated([once, after], [set(), {"a"}])) == ["a"]
    silent = life(tmp_path / "silent")  # killed after the rename, before it could log
    assert list(_repeated([silent, after], [set(), {"a"}])) == ["a"]


def test_the_judge_counts_updates_that_are_made_again(tmp_path: Path, world: World) -> None:
    stages = [key for key, step in world.sweep.steps.items() if step.kind == "finetune"]

    def updates(attempt: str, key: str, *numbers: int) -> list[dict[str, object]]:
        return [{"point": "update", "key": key, "attempt": attempt, "update": number} for number in numbers]

    others = [event for key in stages[1:] for event in updates("whole", key, *range(1, UPDATES + 1))]
    first = life(tmp_path / "first", *updates("one", stages[0], 1, 2, 3, 4, 5))
    resumed = life(tmp_path / "resumed", *updates("two", stages[0], 4, 5, 6, 7, 8, 9), *others)
    assert list(_made_again(world.sweep, [first, resumed])) == [(stages[0], 2)]
    short = life(tmp_path / "short", *updates("two", stages[0], 6, 7), *others)
    with pytest.raises(AssertionError, match="every update"):
        list(_made_again(world.sweep, [first, short]))
