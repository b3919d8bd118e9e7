"""The last lines of a run: an address, or a command and the address that it then answers at."""

from __future__ import annotations

import shlex
import sqlite3
from contextlib import closing
from pathlib import Path

from made import write_sweep

from lmmcl.config.sweep import load_sweep
from lmmcl.ledger import Ledger
from lmmcl.runner.reporting.sweep_label import find_label
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
    """By its origin: in a database that stores share, the experiment of its name may be that of another store's sweep."""
    sweep = load_sweep(write_sweep(tmp_path))
    one, two = (find_label(sweep, Ledger(str(tmp_path / store))) for store in ("one", "two"))
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert len(recorded_lines(uri, one)) == 1, "no database, no address"
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        database.execute("CREATE TABLE experiments (experiment_id INTEGER, name TEXT, lifecycle_stage TEXT)")
        database.execute("CREATE TABLE experiment_tags (experiment_id INTEGER, key TEXT, value TEXT)")
        rows = [(7, "small", one), (8, "small-2", two), (9, "small-10", two), (3, "larger", two)]
        for id, name, label in rows:
            database.execute("INSERT INTO experiments VALUES (?, ?, 'active')", (id, name))
            database.execute("INSERT INTO experiment_tags VALUES (?, 'lmmcl.origin', ?)", (id, label.in_store.origin))
    assert "#/experiments/7/runs" in recorded_lines(uri, one)[-1] and "another" not in recorded_lines(uri, one)[0]
    assert "#/experiments/8/runs" in recorded_lines(uri, two)[-1]
    assert "(experiment 'small-2': another has the name)" in recorded_lines(uri, two)[0]
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        database.execute("UPDATE experiments SET lifecycle_stage = 'deleted'")
    assert len(recorded_lines(uri, two)) == 1, "one in the trash has no page"
