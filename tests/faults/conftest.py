"""What the tests of faults share: one small sweep, undisturbed, and a file of what came of each cell."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from fault_cells import Cell
from fault_scenes import Outcome, World
from fault_table import read


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    shared = World(tmp_path_factory.mktemp("faults"))
    yield shared
    shared.close()


class Results:
    """The file that LMMCL_FAULTS_RESULTS names (fault_table.py makes the page from it), else one of this session.

    Cells that are in it were played in an earlier session, and are not played again.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._played = (
            {(row["kind"], row["phase"], row["mode"], row["place"]) for row in read(file)} if file.exists() else set()
        )

    def skip_played(self, cells: Sequence[Cell]) -> None:
        """Skip the test where all of these were played."""
        if all(cell.identity in self._played for cell in cells):
            pytest.skip("played in an earlier session")

    def add(self, outcome: Outcome) -> None:
        """Keep what came of a cell."""
        with self._file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(outcome.row()) + "\n")


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return Results(Path(os.environ.get("LMMCL_FAULTS_RESULTS") or tmp_path_factory.mktemp("results") / "results.jsonl"))


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A suite of an hour tells of a failure when it happens."""
    if report.failed and report.longrepr is not None and "faults" in report.keywords:
        print(f"\n{report.longreprtext[-6000:]}")
