"""A run that finds all recorded, and page and MLflow as they were left, writes nothing; anything else brings them up to date."""

from __future__ import annotations

from pathlib import Path

import pytest
from made import write_sweep
from pretended import Pretence, pretence, run  # noqa: F401 - a fixture

from lmmcl.config.sweep import load_sweep
from lmmcl.ledger import Ledger
from lmmcl.ledger.packs.packed_files import pack_of

SAID = "(up to date)"

pytestmark = pytest.mark.usefixtures("packed_runs")


def test_a_run_that_finds_nothing_to_do_shows_the_table_and_writes_nothing(
    tmp_path: Path,
    pretence: Pretence,  # noqa: F811
) -> None:
    sweep = write_sweep(tmp_path)
    first = run(sweep).stdout
    assert SAID not in first
    page, store = tmp_path / "store" / "reports" / "small" / "index.html", tmp_path / "store"
    page.write_text("<html>", encoding="utf-8")  # pretended runs draw none
    times = {file: file.stat().st_mtime_ns for file in store.rglob("*") if file.is_file()}
    again = run(sweep).stdout
    assert SAID in again and "0 steps computed" in again and str(page) in again
    assert {file: file.stat().st_mtime_ns for file in store.rglob("*") if file.is_file()} == times
    table = [line for line in first.splitlines() if "sa_proj" in line and "stage" not in line]
    assert table and all(line in again for line in table)


def test_what_was_changed_or_lost_is_made_good(tmp_path: Path, pretence: Pretence) -> None:  # noqa: F811
    sweep = write_sweep(tmp_path)
    run(sweep)
    folder = tmp_path / "store" / "reports" / "small"
    assert SAID not in run(sweep).stdout, "there is no page: pretended runs draw none"
    (folder / "index.html").write_text("<html>", encoding="utf-8")
    assert SAID in run(sweep).stdout
    (folder / "shown.json").write_text("{")
    assert SAID not in run(sweep).stdout
    step = list(load_sweep(sweep).steps.values())[-1]
    ledger = Ledger(str(tmp_path / "store"))
    pack = ledger.files.at(pack_of(step.path) or "")
    pack.write_bytes(pack.read_bytes())
    assert SAID not in run(sweep).stdout, "a record was written again: what the page shows may be other"
    ledger.quarantine(step.path)
    assert not ledger.has(step) and SAID not in run(sweep).stdout and ledger.has(step)
    assert SAID not in run(sweep, "--set", "description=other").stdout, "the sweep says something else of itself"
    assert SAID in run(sweep, "--set", "description=other").stdout
