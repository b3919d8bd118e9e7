"""Two different sweeps of one name in one store have a page each; a sweep that was edited or moved keeps its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from made import SWEEP, write_sweep
from pretended import Pretence, pretence, run  # noqa: F401 - a fixture

from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.ledger import Ledger
from lmmcl.ledger.store import Store
from lmmcl.runner.reporting.sweep_label import claim_label, find_label

OTHER = SWEEP.replace("3.0e-4", "5.0e-4").replace("1.0e-3", "2.0e-3")


@pytest.fixture
def store(tmp_path: Path) -> Ledger:
    """A store that has the sweep of `one/small.yaml`."""
    ledger = Ledger(str(tmp_path / "store"))
    keep(load_sweep(written(tmp_path, "one", SWEEP)), ledger)
    return ledger


def keep(sweep: Sweep, ledger: Ledger) -> None:
    find_label(sweep, ledger).keep(sweep)


def written(folder: Path, name: str, text: str) -> Path:
    (folder / name).mkdir(exist_ok=True)
    return write_sweep(folder / name, text)


def test_a_sweep_keeps_its_name_when_it_is_edited_moved_or_extended(tmp_path: Path, store: Ledger) -> None:
    for place, text in (("one", OTHER), ("moved", SWEEP), ("extended", SWEEP.replace("3.0e-4", "3.0e-4, 9.0e-4"))):
        assert find_label(load_sweep(written(tmp_path, place, text)), store).name == "small", place


def test_another_sweep_of_the_name_is_numbered_and_this_is_said(tmp_path: Path, store: Ledger) -> None:
    other = load_sweep(written(tmp_path, "two", OTHER))
    assert find_label(other, store).folder == tmp_path / "store" / "reports" / "small-2"
    note = str(find_label(other, store).note)
    assert str(tmp_path / "one" / "small.yaml") in note and "'small-2'" in note and "edit `name`" in note
    keep(other, store)
    assert find_label(other, store).folder.name == "small-2", "it is found again"
    third = load_sweep(written(tmp_path, "three", OTHER.replace("2.0e-3", "7.0e-3").replace("5.0e-4", "6.0e-3")))
    assert find_label(third, store).folder.name == "small-3"


def test_a_copy_that_shares_trials_takes_the_page_over_and_says_so(tmp_path: Path, store: Ledger) -> None:
    copy = load_sweep(written(tmp_path, "copy", SWEEP.replace("3.0e-4", "4.0e-4")))
    assert find_label(copy, store).folder.name == "small"
    assert "last made from" in str(find_label(copy, store).note)
    keep(copy, store)
    assert find_label(copy, store).note is None


def test_a_page_of_an_earlier_version_which_noted_no_file_stays_with_the_name(tmp_path: Path, store: Ledger) -> None:
    (tmp_path / "store" / "reports" / "small" / "origin.txt").unlink()
    other = load_sweep(written(tmp_path, "two", OTHER))
    assert find_label(other, store).folder.name == "small" and find_label(other, store).note is None


def test_of_two_sweeps_of_a_name_that_start_together_each_has_its_own_label(tmp_path: Path) -> None:
    store = Ledger(str(tmp_path / "store"))
    one, two = (load_sweep(written(tmp_path, place, text)) for place, text in (("one", SWEEP), ("two", OTHER)))
    labels = [claim_label(sweep, store) for sweep in (one, two)]
    assert [label.name for label in labels] == ["small", "small-2"], "before either has written what it consists of"
    for label, sweep in zip(labels, (one, two), strict=True):
        label.keep(sweep)
    assert [claim_label(sweep, store).name for sweep in (one, two)] == ["small", "small-2"]


def test_a_label_that_another_run_takes_in_the_same_moment_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Ledger(str(tmp_path / "store"))
    one, two = (load_sweep(written(tmp_path, place, text)) for place, text in (("one", SWEEP), ("two", OTHER)))
    create, first = Store.create, []

    def late(files: Store, name: str, content: bytes) -> bool:
        if not first:
            first.append(name)
            claim_label(one, store)
        return create(files, name, content)

    monkeypatch.setattr(Store, "create", late)
    assert claim_label(two, store).name == "small-2" and first == ["reports/small/origin.txt"]


def test_a_note_names_the_folder_where_the_other_sweep_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages lie beside the work where the store is elsewhere: another store's sweep may have the name there."""
    monkeypatch.chdir(tmp_path)
    one, two = (load_sweep(written(tmp_path, place, text)) for place, text in (("one", SWEEP), ("two", OTHER)))
    find_label(one, Ledger(f"memory://{tmp_path.name}-one")).keep_beside_page(one)
    label = find_label(two, Ledger(f"memory://{tmp_path.name}-two"))
    origin = tmp_path / "one" / "small.yaml"
    assert label.name == "small-2"
    assert f"the folder lmmcl-reports has another sweep named 'small' ({origin})" in str(label.note)
    shared = load_sweep(written(tmp_path, "copy", SWEEP))
    assert f"last made from {origin}" in str(find_label(shared, Ledger(f"memory://{tmp_path.name}-two")).note)


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
