"""The last lines of a run: an address, or a command and the address that it then answers at."""

from __future__ import annotations

import shlex
import sqlite3
from contextlib import closing
from pathlib import Path

from made import write_sweep

from lmmcl.config.sweep import load_sweep
from lmmcl.ledger import Ledger
from lmmcl.runner.trackers import mlflow_lines, recorded_lines

ADDRESS = "#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey=lmmcl"


def test_a_server_has_the_trials_at_its_own_address() -> None:
    assert mlflow_lines("http://host:5000/", ADDRESS) == [f"MLflow  http://host:5000/{ADDRESS}"]
    assert mlflow_lines("https://me:secret@host/mlflow", ADDRESS)[0].endswith(f"@host/mlflow/{ADDRESS}")
    assert "secret" not in mlflow_lines("https://me:secret@host/mlflow", ADDRESS)[0]


def test_a_database_needs_a_command_first_whose_address_comes_last() -> None:
    command, then = mlflow_lines("sqlite:////a b/mlflow.db", ADDRESS)
    assert shlex.split(command)[1:] == ["mlflow", "ui", "--backend-store-uri", "sqlite:////a b/mlflow.db"]
    assert then.split() == ["then", "open", f"http://127.0.0.1:5000/{ADDRESS}"]


def test_a_finished_sweep_finds_its_experiment_without_mlflow(tmp_path: Path) -> None:
    sweep, ledger = load_sweep(write_sweep(tmp_path)), Ledger(str(tmp_path))
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert len(recorded_lines(uri, sweep, ledger)) == 1, "no database, no address"
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        database.execute("CREATE TABLE experiments (experiment_id INTEGER, name TEXT)")
        database.execute("INSERT INTO experiments VALUES (7, 'small')")
    assert "#/experiments/7/runs" in recorded_lines(uri, sweep, ledger)[-1]
