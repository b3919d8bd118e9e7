"""One byte flipped in each file that a real run leaves: weights, curves, answers, and MLflow's database."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from inspection.test_flipped_bytes import files, flipped, numbers
from made import write_sweep
from pretended import lmmcl, told

from lmmcl.inspection.audit import check_store
from lmmcl.ledger import Ledger
from lmmcl.ledger.packs.packed_files import pack_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SWEEP = """
name: small
orders: {main: [counting, birds]}
benchmarks: {held_out: [colour]}
training: {epochs: 1, examples: 64, global_batch_size: 16, precision: fp32, learning_rate: 1.0e-3}
evaluation: {precision: fp32, limit: 10}
grids:
  - {model: [tiny-onevision], recipe: [sa_proj], mitigation: [null, wise_ft], seed: [0]}
"""
WRITTEN_AGAIN = ("reports", "mlflow-artifacts", "mlflow.db")
"""What every run or report writes again from the records; `ledger check` is about these."""


def run(sweep: Path) -> str:
    command = [sys.executable, "-m", "lmmcl", "run", str(sweep), "--inline", "--store", str(sweep.parent / "store")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sweep = write_sweep(tmp_path_factory.mktemp("real"), SWEEP)
    run(sweep)
    return sweep


@pytest.mark.parametrize("form", ["single files", "packs"])
def test_a_flipped_byte_in_any_result_is_found_and_changes_no_number(sweep: Path, form: str) -> None:
    store = sweep.parent / "store"
    if form == "packs":
        lmmcl("ledger", "pack", "--store", store)
    whole = numbers(told("report", sweep))
    results = [file for file in files(store) if file.relative_to(store).parts[0] not in WRITTEN_AGAIN]
    assert {file.suffix for file in results} >= {".zip" if form == "packs" else ".jsonl", ".safetensors"}
    for file in (file for file in results if file.stat().st_size):
        name, content = file.relative_to(store).as_posix(), file.read_bytes()
        file.write_bytes(flipped(content, name))
        shown = numbers(told("report", sweep))
        assert all(whole[key] == value for key, value in shown.items()), name
        found = [damage.path for damage in check_store(Ledger(str(store))).damages]
        assert any(name.startswith(path) or name == pack_of(path) for path in found), name
        file.write_bytes(content)


def test_what_is_put_aside_for_a_flipped_byte_in_weights_is_computed_again_with_the_same_scores(sweep: Path) -> None:
    store = sweep.parent / "store"
    whole = numbers(told("report", sweep))
    weights = sorted(store.glob("checkpoints/*/1-*/delta.safetensors"))[0]
    weights.write_bytes(flipped(weights.read_bytes(), "weights"))
    assert "damaged" in lmmcl("ledger", "check", "--store", store, "--repair").output
    run(sweep)
    assert numbers(told("report", sweep)) == whole
    assert not check_store(Ledger(str(store))).damages


@pytest.mark.parametrize("place", [20, 100, 5000, 300_000, 600_000])
def test_a_flipped_byte_in_the_database_of_mlflow_stops_no_run(sweep: Path, place: int) -> None:
    database = sweep.parent / "store" / "mlflow.db"
    content = database.read_bytes()
    database.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
    assert "0 steps computed" in run(sweep)
    assert sqlite_is_whole(database)
    database.write_bytes(content)


def sqlite_is_whole(database: Path) -> bool:
    import sqlite3

    with sqlite3.connect(database) as connection:
        return connection.execute("select count(*) from runs").fetchone()[0] >= 2
