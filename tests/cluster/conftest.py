"""What the tests of faults share: an undisturbed sweep, a diary of every disturbed one, one table of all faults."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chaos import PATIENCE, SEED, SWEEP, TABLE, Table, end_started, scores
from inside.sitecustomize import DIARY
from made import write_sweep
from processes import Command

from lmmcl.config.sweep import load_sweep
from lmmcl.ledger import Ledger


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    """Every question's score of the sweep when nothing happens to it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    sweep = load_sweep(write_sweep(folder, SWEEP))
    alone = Command("run", "small.yaml", "--store", "store", "--mlflow", "off", "--inline", cwd=folder)
    assert alone.wait(PATIENCE) == 0, alone.output
    return scores(sweep, Ledger(str(folder / "store")))


@pytest.fixture(autouse=True)
def _diary(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have the processes of disturbed sweeps write down what they begin and each update that they make."""
    if request.node.get_closest_marker("faults"):
        inside = str(Path(__file__).with_name("inside"))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [inside, os.environ.get("PYTHONPATH")])))
        monkeypatch.setenv(DIARY, str(tmp_path / "diary"))
    yield
    end_started()


@pytest.fixture
def table() -> Iterator[Table]:
    """Where a test adds the faults that were survived; written after each test to the file that LMMCL_FAULTS_TABLE names."""
    print(f"LMMCL_FAULTS_SEED={SEED}")
    yield TABLE
    if path := os.environ.get("LMMCL_FAULTS_TABLE"):
        Path(path).write_text(f"{TABLE.text()}\n", encoding="utf-8")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if TABLE.rows:
        terminalreporter.section("faults")
        terminalreporter.write_line(TABLE.text())
