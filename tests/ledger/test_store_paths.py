"""A store works below any name that a file system or an object store takes: nothing in it is a pattern or a part of a URI."""

from __future__ import annotations

from pathlib import Path

import pytest
from made import made_trial

from lmmcl.ledger import Ledger
from lmmcl.ledger.record import RECORD
from lmmcl.ledger.store import Store, local_path

NAMES = ["st[1]a", "a*b?c", "a%20b", "a#b", "user:pw@host", "a::b", "with space", "Größe→", "~", "{x,y}", "x" * 200]
STEP = made_trial().stages[1].checkpoint


@pytest.fixture(params=["folder", "memory"])
def below(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "folder" else f"memory://{tmp_path.name}"


@pytest.mark.parametrize("name", NAMES)
def test_a_store_finds_moves_and_removes_its_own_files_whatever_its_name(name: str, below: str) -> None:
    if "::" in name and "://" in below:
        pytest.skip("in a URI `::` chains file systems; a folder may be called so")
    store, decoy = Store(f"{below}/{name}/s"), Store(f"{below}/st1a/s")
    decoy.write("kind/x/y/record.json", b"another store's")
    for file in ("kind/x/y/record.json", "kind/record.json", "kind/x/other.json", "top.json"):
        store.write(file, file.encode())
    assert store.matches("kind/**/record.json") == ["kind/record.json", "kind/x/y/record.json"]
    assert store.matches("kind/*/*.json") == ["kind/x/other.json"]
    assert store.matches("*.json") == ["top.json"]
    assert store.matches("kind/x/other.json") == ["kind/x/other.json"]
    assert store.matches("nothing/*.json") == []
    store.move("kind/x/other.json", "kind/x/moved.json")
    assert store.sizes("kind").keys() == {"record.json", "x/moved.json", "x/y/record.json"}
    store.remove_folder("kind/x")
    assert store.sizes("kind").keys() == {"record.json"}
    assert decoy.read("kind/x/y/record.json") == b"another store's"


def test_a_pattern_has_one_special_character() -> None:
    store = Store("memory://patterns")
    store.write("a/x[1].json", b"")
    store.write("a/x1.json", b"")
    assert store.matches("a/x[1].*") == ["a/x[1].json"]


@pytest.mark.parametrize("name", NAMES)
def test_a_step_is_recorded_listed_and_put_aside_whatever_the_name_of_its_store(name: str, tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / name / "s"))
    with ledger.writing(STEP) as pending:
        (pending.folder / "delta.safetensors").write_text("weights")
        pending.commit({"value": 1})
    assert ledger.paths() == [STEP.path]
    assert (tmp_path / name / "s" / STEP.path / RECORD).is_file()
    ledger.quarantine(STEP.path)
    assert ledger.paths() == [] and ledger.find(STEP) is None


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("file:///a%20b/c", "/a b/c"),
        ("file:///a%2520b#c?d", "/a%20b#c?d"),
        ("file://localhost/a", "/a"),
        ("/a%20b", "/a%20b"),
    ],
)
def test_a_file_uri_means_the_folder_that_it_names(written: str, meant: str) -> None:
    assert local_path(written) == Path(meant)
    assert Ledger(written).store == meant


def test_a_store_reached_by_a_link_is_the_store_itself(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert Ledger(str(tmp_path / "link")).store == str(tmp_path / "real")
