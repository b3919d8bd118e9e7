"""A record's existence means that its step is done; anything less is never taken for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from made import MadeModel, made_trial

from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.ledger.draft import PARTIAL
from lmmcl.ledger.record import RECORD

STEP = made_trial().stages[1].checkpoint
STORES = ["local", "memory"]


@pytest.fixture(params=STORES)
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path / "store") if request.param == "local" else f"memory://{tmp_path.name}")


def finish(ledger: Ledger, value: int = 1, step=STEP) -> None:
    with ledger.writing(step) as draft:
        (draft.folder / "curve.jsonl").write_text('{"update": 1}\n')
        draft.commit({"value": value})


def test_a_step_is_found_once_it_is_committed(ledger: Ledger) -> None:
    assert ledger.find(STEP) is None
    finish(ledger)
    record = ledger.find(STEP)
    assert record is not None
    assert (record["value"], record["key"], record["model"], record["depth"]) == (1, STEP.key, "made", 1)
    assert ledger.read_lines(STEP.path, "curve.jsonl") == [{"update": 1}]
    assert ledger.paths() == [STEP.path]


def test_a_step_that_broke_leaves_nothing(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), ledger.writing(STEP) as draft:
        (draft.folder / "curve.jsonl").write_text("half")
        raise RuntimeError
    assert ledger.find(STEP) is None
    assert ledger.being_written() == set()


def test_of_two_that_computed_the_same_the_first_stays(ledger: Ledger) -> None:
    with ledger.writing(STEP) as slow:
        finish(ledger, value=1)
        record = slow.commit({"value": 2})
    assert record["value"] == 1


def test_a_record_that_was_not_written_to_its_end_is_not_found(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    folder = tmp_path / STEP.path
    folder.mkdir(parents=True)
    (folder / f"{RECORD}.partial").write_text('{"value"')
    assert ledger.find(STEP) is None
    assert ledger.paths() == []


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    with ledger.writing(STEP) as draft:
        dead = draft.folder.with_name(draft.folder.name.replace(str(os.getpid()), "999999999"))
        dead.mkdir()
        assert ledger.remove_abandoned() == 1
        assert draft.folder.exists()
        assert ledger.being_written() == {STEP.key}
    assert not any((tmp_path / PARTIAL).iterdir())


def test_a_checkpoint_is_found_by_the_beginning_of_its_key_or_by_its_label(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lmmcl.ledger.ledger.get_model", MadeModel)
    finish(ledger, step=made_trial().stages[0].checkpoint)
    finish(ledger)
    assert ledger.checkpoint(STEP.key[:6]).path == STEP.path
    found = ledger.checkpoint(STEP.label)
    assert (found.key, found.depth, found.parents[0].label) == (STEP.key, 1, "0-base")


def test_a_checkpoint_that_is_not_there_is_answered_with_the_near_ones(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    finish(ledger)
    with pytest.raises(UserError, match="did you mean"):
        ledger.checkpoint(STEP.label.replace("first", "frist") + "-" + STEP.key)


def test_a_store_that_cannot_be_written_is_said_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--store"):
        Ledger(str(tmp_path / "file" / "store")).check_writable()


def test_a_copy_of_an_object_store_on_a_disk_is_a_store_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    bucket = Ledger(f"memory://{tmp_path.name}")
    with bucket.writing(STEP) as draft:
        (draft.folder / "curve.jsonl").write_text('{"update": 1}\n')
        (draft.folder / "delta.safetensors").write_text("weights")
        draft.commit({"value": 1})
    bucket.files.fs.get(bucket.files.root, str(tmp_path / "copy"), recursive=True)
    copy = Ledger(str(tmp_path / "copy"))
    with copy.opened(STEP.path, "delta.safetensors") as path:
        assert path.read_text() == "weights"
    assert copy.read_lines(STEP.path, "curve.jsonl") == [{"update": 1}]
    assert copy.holds(STEP), "the record was put aside"
