"""A small store for tests of packs: its steps, what is read of it in each way, its files, and damage."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from made import made_trial
from typer.testing import CliRunner, Result

from lmmcl.cli import app
from lmmcl.ledger import Ledger
from lmmcl.ledger.index.view import RecordView
from lmmcl.ledger.packs.packed_files import pack_of
from lmmcl.ledger.record import KINDS, RECORD
from lmmcl.steps import Step

STAGES = made_trial().stages
STEPS: list[Step] = [step for stage in STAGES for step in (stage.checkpoint, *stage.evaluations)]
BASE, FIRST, SECOND = (stage.checkpoint for stage in STAGES)
ASKED, OTHER = STAGES[1].evaluations[:2]


def compute(ledger: Ledger, step: Step, score: float = 50.0) -> None:
    with ledger.writing(step) as draft:
        (draft.folder / "rows.jsonl").write_text(json.dumps({"of": step.key, "score": score}) + "\n")
        if step in (FIRST, SECOND):
            (draft.folder / "delta.safetensors").write_text(f"weights {score}")
        draft.commit({"score": score})


def read_all(ledger: Ledger) -> dict[str, Any]:
    """All that the store says about the steps, through each way of reading."""
    fresh = Ledger(ledger.store)
    view = RecordView(fresh)
    view.prefetch(STEPS)
    found: dict[str, Any] = {}
    for step in STEPS:
        record = fresh.find(step)
        viewed = view.find(step)
        assert (record and dict(record.fields)) == (viewed and dict(viewed.fields)), step.path
        assert view.has(step) is fresh.has(step) is (record is not None)
        with fresh.opened(step.path, "step.json") as file:
            key = json.loads(file.read_text())["key"] if file.exists() else None
        found[step.path] = record and dict(record.fields), fresh.read_lines(step.path, "rows.jsonl"), key
    assert view.paths() == [path for kind in KINDS for path in fresh.paths(kind)]
    found["paths"] = view.paths()
    found["of one"] = fresh.paths(f"scores/{FIRST.path.removeprefix('checkpoints/')}")
    return found


def files(ledger: Ledger) -> dict[str, bytes]:
    return {name: ledger.files.read(name) for name in ledger.sizes("") if not name.startswith(("index/", "claims/"))}


def flip(ledger: Ledger, find: bytes) -> str:
    """Change a byte of the pack of the first stage; returns its name."""
    name = pack_of(FIRST.path)
    assert name is not None
    content = bytearray(ledger.files.read(name))
    content[content.index(find) + len(find) + 3] ^= 0x20
    ledger.files.write(name, bytes(content))
    return name


def check(ledger: Ledger, *more: str) -> Result:
    return CliRunner().invoke(app, ["ledger", "check", "--store", ledger.store, *more])


DAMAGED: dict[str, Callable[[Ledger], str]] = {
    "a record": lambda ledger: flip(ledger, f"{ASKED.path}/{RECORD}".encode()),
    "a file": lambda ledger: flip(ledger, f"{ASKED.path}/rows.jsonl".encode()),
    "a name": lambda ledger: flip(ledger, ASKED.path[:-8].encode()),
}
