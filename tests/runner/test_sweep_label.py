"""Two different sweeps of one name in one store have a page each; a sweep that was edited or moved keeps its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from made import SWEEP, write_sweep
from pretended import Pretence, pretence, run  # noqa: F401 - a fixture

from lmmcl.config.sweep import load_sweep
from lmmcl.ledger import Ledger
from lmmcl.runner.reporting.sweep_label import identify, keep_sweep, name_note, report_folder

OTHER = SWEEP.replace("3.0e-4", "5.0e-4").replace("1.0e-3", "2.0e-3")


@pytest.fixture
def store(tmp_path: Path) -> Ledger:
    """A store that has the sweep of `one/small.yaml`."""
    ledger = Ledger(str(tmp_path / "store"))
    keep_sweep(load_sweep(written(tmp_path, "one", SWEEP)), ledger)
    return ledger


def written(folder: Path, name: str, text: str) -> Path:
    (folder / name).mkdir(exist_ok=True)
    return write_sweep(folder / name, text)


def test_a_sweep_keeps_its_name_when_it_is_edited_moved_or_extended(tmp_path: Path, store: Ledger) -> None:
    for place, text in (("one", OTHER), ("moved", SWEEP), ("extended", SWEEP.replace("3.0e-4", "3.0e-4, 9.0e-4"))):
        assert identify(load_sweep(written(tmp_path, place, text)), store).name == "small", place


def test_another_sweep_of_the_name_is_numbered_and_this_is_said(tmp_path: Path, store: Ledger) -> None:
    other = load_sweep(written(tmp_path, "two", OTHER))
    assert report_folder(store, other) == tmp_path / "store" / "reports" / "small-2"
    note = str(name_note(other, store))
    assert str(tmp_path / "one" / "small.yaml") in note and "'small-2'" in note and "edit `name`" in note
    keep_sweep(other, store)
    assert report_folder(store, other).name == "small-2", "it is found again"
    third = load_sweep(written(tmp_path, "three", OTHER.replace("2.0e-3", "7.0e-3").replace("5.0e-4", "6.0e-3")))
    assert report_folder(store, third).name == "small-3"


def test_a_copy_that_shares_trials_takes_the_page_over_and_says_so(tmp_path: Path, store: Ledger) -> None:
    copy = load_sweep(written(tmp_path, "copy", SWEEP.replace("3.0e-4", "4.0e-4")))
    assert report_folder(store, copy).name == "small"
    assert "last made from" in str(name_note(copy, store))
    keep_sweep(copy, store)
    assert name_note(copy, store) is None


def test_a_page_of_an_earlier_version_which_noted_no_file_stays_with_the_name(tmp_path: Path, store: Ledger) -> None:
    (tmp_path / "store" / "reports" / "small" / "origin.txt").unlink()
    other = load_sweep(written(tmp_path, "two", OTHER))
    assert report_folder(store, other).name == "small" and name_note(other, store) is None


def test_a_run_says_at_its_beginning_that_another_sweep_has_the_name(
    tmp_path: Path,
    store: Ledger,
    pretence: Pretence,  # noqa: F811
) -> None:
    other = SWEEP.replace("sa_proj, gate_up", "llm")
    said = run(written(tmp_path, "two", other), "--store", store.store).stdout
    assert "another sweep named 'small'" in " ".join(said.split())
    folders = [path.parent.name for path in (tmp_path / "store" / "reports").glob("*/sweep.json")]
    assert sorted(folders) == ["small", "small-2"]
