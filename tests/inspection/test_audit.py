"""A store is walked, and each kind of damage is reported with its place and kind; what is harmless is not damage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from made import made_trial
from typer.testing import CliRunner, Result

from lmmcl.cli import app
from lmmcl.errors import UserError
from lmmcl.inspection.audit import check_store
from lmmcl.ledger import Ledger
from lmmcl.ledger.record import RECORD

BASE, FIRST, SECOND = (stage.checkpoint for stage in made_trial().stages)
ASKED = made_trial().stages[1].evaluations[0]
SAID = json.dumps({"key": ASKED.key, "kind": "evaluate", "parents": []})


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(str(tmp_path / "store"))
    for step in (BASE, FIRST, SECOND, ASKED):
        with ledger.writing(step) as draft:
            (draft.folder / "rows.jsonl").write_text('{"update": 1}\n')
            if step in (FIRST, SECOND):
                (draft.folder / "delta.safetensors").write_text("weights")
            draft.commit({"score": 50.0})
    return ledger


def check(ledger: Ledger, *more: str) -> Result:
    return CliRunner().invoke(app, ["ledger", "check", "--store", ledger.store, *more])


def changed(name: str, change: Callable[[str], str]) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(change((folder / name).read_text()))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a record that was cut": (changed(RECORD, lambda text: text[:40]), "record.json is truncated or not valid JSON"),
    "a score that was changed": (
        changed(RECORD, lambda text: text.replace("50.0", "60.0")),
        "record.json does not match its checksum",
    ),
    "a record of something else": (changed(RECORD, lambda _: '["a"]'), "record.json is not a JSON object"),
    "the record of another step": (changed(RECORD, lambda _: SAID), f"its record is of {ASKED.key}"),
    "a file that was cut": (changed("delta.safetensors", lambda text: text[:3]), "delta.safetensors has 3 bytes, not"),
    "a file that was changed": (
        changed("rows.jsonl", lambda text: text.replace("1", "2")),
        "rows.jsonl checksum mismatch",
    ),
    "a file that is missing": (lambda folder: (folder / "delta.safetensors").unlink(), "delta.safetensors is missing"),
}


def test_a_whole_store_is_said_to_be_whole(ledger: Ledger) -> None:
    said = check(ledger)
    assert said.exit_code == 0
    assert "1 evaluate, 2 finetune, 1 pretrained; 0 damaged, 0 unfinished" in said.output


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_told_changes_nothing_and_is_repaired_when_asked_for(ledger: Ledger, kind: str) -> None:
    damage, told = DAMAGES[kind]
    damage(Path(ledger.store, FIRST.path))
    before = ledger.sizes("")
    said = check(ledger)
    assert said.exit_code == 1
    assert f"{FIRST.path}: {told}" in said.output and "--repair" in said.output
    assert ("1 unreadable" in said.output) is ("record.json" in told)
    assert ledger.sizes("") == before
    assert [each["path"] for each in json.loads(check(ledger, "--json").output)["damages"]] == [FIRST.path]
    repaired = check(ledger, "--repair")
    assert repaired.exit_code == 1 and "quarantined" in repaired.output
    assert ledger.find(FIRST) is None
    again = check(ledger)
    assert again.exit_code == 0 and "0 damaged, 1 unfinished, 1 without parent" in again.output


def test_what_is_harmless_is_not_damage(ledger: Ledger) -> None:
    ledger.drop_weights(SECOND.path)
    shutil.rmtree(Path(ledger.store, FIRST.path))
    Path(ledger.store, ASKED.path, RECORD).unlink()
    audit = check_store(ledger)
    assert audit.damages == [] and audit.dropped == 1
    assert (audit.orphans, audit.unfinished) == ([SECOND.path], [ASKED.path])


def test_where_there_is_no_store_a_person_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"stroe does not exist.*--store"):
        check_store(Ledger(str(tmp_path / "stroe")))


def test_an_empty_store_is_said_to_hold_nothing(tmp_path: Path) -> None:
    said = check(Ledger(str(tmp_path)))
    assert said.exit_code == 0 and said.output.startswith("no records; 0 damaged")
