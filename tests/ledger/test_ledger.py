"""A record's existence means that its step is done; anything less is never taken for it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from made import MadeModel, made_trial

from lmmcl.errors import UserError
from lmmcl.ledger import ASIDE, Ledger
from lmmcl.ledger.record import RECORD, DamagedError, DroppedError

STEP = made_trial().stages[1].checkpoint
STORES = ["local", "memory"]


@pytest.fixture(params=STORES)
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path / "store") if request.param == "local" else f"memory://{tmp_path.name}")


def finish(ledger: Ledger, value: int = 1, step=STEP) -> None:
    with ledger.writing(step) as draft:
        (draft.folder / "curve.jsonl").write_text('{"update": 1}\n')
        draft.commit({"value": value})


def finish_weights(ledger: Ledger) -> None:
    with ledger.writing(STEP) as draft:
        (draft.folder / "delta.safetensors").write_text("weights")
        draft.commit({})


def test_a_step_is_found_once_it_is_committed(ledger: Ledger) -> None:
    assert ledger.find(STEP) is None
    finish(ledger)
    record = ledger.find(STEP)
    assert record is not None
    assert (record["value"], record["key"], record["model"], record["depth"]) == (1, STEP.key, "made", 1)
    assert ledger.read_lines(STEP.path, "curve.jsonl") == [{"update": 1}]
    assert ledger.paths() == [STEP.path]


def test_each_line_of_a_file_is_a_row(ledger: Ledger) -> None:
    with ledger.writing(STEP) as draft:
        (draft.folder / "rows.jsonl").write_text('{"a": 1}\n\n{"a": [2, 3]}\n')
        (draft.folder / "joined.jsonl").write_text('{"a": 1\n"b": 2}\n')
        (draft.folder / "two.jsonl").write_text('{"a": 1}, {"a": 2}\n{"a": 3}\n')
        draft.commit({})
    assert ledger.read_lines(STEP.path, "rows.jsonl") == [{"a": 1}, {"a": [2, 3]}]
    for name in ("joined.jsonl", "two.jsonl"):  # what is a list of rows only when its lines are joined by commas
        with pytest.raises(ValueError, match=r"Expecting|Extra data"):
            ledger.read_lines(STEP.path, name)


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


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda content: content[:-20],
    "a digit changed": lambda content: content.replace(b'"value": 1', b'"value": 7'),
    "its end written over": lambda content: content[:-3] + (b'1"}' if content[-3:-2] == b"0" else b'0"}'),
    "no record": lambda content: b"[]",
    "empty": lambda content: b"",
    "not even text": lambda content: bytes(range(128, 256)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_record_that_was_cut_or_changed_is_none_and_is_written_again(ledger: Ledger, damage: str) -> None:
    finish(ledger)
    name = f"{STEP.path}/{RECORD}"
    whole = ledger.files.read(name)
    damaged = DAMAGES[damage](whole)
    assert damaged != whole, "a damage that changes nothing shows nothing"
    ledger.files.write(name, damaged)
    assert ledger.find(STEP) is None
    finish(ledger, value=2)
    record = ledger.find(STEP)
    assert record is not None and record["value"] == 2


def test_a_record_without_a_seal_is_taken_at_its_word(ledger: Ledger) -> None:
    finish(ledger)
    name = f"{STEP.path}/{RECORD}"
    said = json.loads(ledger.files.read(name))
    assert re.fullmatch("[0-9a-f]{64}", said.pop("seal"))
    ledger.files.write(name, json.dumps({**said, "value": 3}).encode())
    record = ledger.find(STEP)
    assert record is not None and record["value"] == 3 and "seal" not in record.fields


def test_of_two_that_upload_at_once_the_first_record_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(f"memory://{tmp_path.name}")
    put, others = ledger.files.put, []

    def meanwhile_another(local: Path, name: str) -> None:
        put(local, name)
        if not others:
            others.append(name)
            finish(ledger, value=1)

    monkeypatch.setattr(ledger.files, "put", meanwhile_another)
    finish(ledger, value=2)
    record = ledger.find(STEP)
    assert record is not None and record["value"] == 1, "children may lie over its weights"
    assert {name.split("/")[0] for name in ledger.sizes(STEP.path)} == {RECORD, record["at"]}, "the other's are gone"


def test_weights_that_were_dropped_are_told_and_their_record_stays(ledger: Ledger) -> None:
    finish_weights(ledger)
    assert ledger.drop_weights(STEP.path) == len("weights")
    with pytest.raises(DroppedError, match="lmmcl gc"), ledger.opened(STEP.path, "delta.safetensors"):
        pass
    with ledger.opened(STEP.path, "never.safetensors") as path:
        assert not path.exists(), "it never had this one"
    record = ledger.find(STEP)
    assert record is not None and not record.has_weights
    assert ledger.drop_weights(STEP.path) == 0
    finish_weights(ledger)
    with ledger.opened(STEP.path, "delta.safetensors") as path:
        assert path.read_text() == "weights"


def test_rows_are_what_was_recorded_or_told_and_reading_them_changes_nothing(ledger: Ledger) -> None:
    finish(ledger)
    record = ledger.find(STEP)
    assert record is not None
    ledger.files.write(f"{record.folder}/curve.jsonl", b'{"update": 9}\n')
    with pytest.raises(DamagedError, match=r"curve.jsonl: .*checksum.*ledger check --repair"):
        ledger.read_lines(STEP.path, "curve.jsonl")
    assert ledger.find(STEP) is not None
    ledger.files.remove(f"{record.folder}/curve.jsonl")
    with pytest.raises(DamagedError, match="missing"):
        ledger.read_lines(STEP.path, "curve.jsonl")
    ledger.quarantine(STEP.path)
    assert ledger.read_lines(STEP.path, "curve.jsonl") == []
    assert ASIDE in ledger.sizes(STEP.path)


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
    assert copy.has_usable(STEP), "the record was quarantined"
