"""Packs of a store elsewhere are fetched once, not for each file in them, and again when they were written again."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from counted_store import Counted, counted_copy
from made import SWEEP, made_trial, write_sweep
from packed_ledger import ASKED, OTHER, STEPS, compute
from synthetic_ledger import fill

from lmmcl.config.sweep import load_sweep
from lmmcl.ledger import Ledger
from lmmcl.ledger.index.view import RecordView
from lmmcl.ledger.packs.packing import pack
from lmmcl.ledger.record import DamagedError
from lmmcl.reports.tables.long_rows import sample_rows
from lmmcl.steps import Step

NAME = "samples.jsonl"
STAGE = made_trial(skills=("birds",), held_out=tuple(f"kept{number}" for number in range(11))).stages[0]


def answered(ledger: Ledger, step: Step, random_: random.Random) -> None:
    rows = [{"id": str(number), "prediction": random_.randbytes(400).hex()} for number in range(250)]
    with ledger.writing(step) as draft:
        (draft.folder / NAME).write_text("".join(json.dumps(row) + "\n" for row in rows))
        draft.commit({"score": 1.0})


@pytest.fixture
def packed(tmp_path: Path) -> Ledger:
    """One pack of a checkpoint with the answers to twelve benchmarks, elsewhere."""
    ledger, random_ = Ledger(str(tmp_path)), random.Random(0)
    compute(ledger, STAGE.checkpoint)
    for step in STAGE.evaluations:
        answered(ledger, step, random_)
    assert pack(ledger).packs == 1
    return counted_copy(tmp_path)


def test_the_answers_in_one_pack_are_fetched_once(packed: Ledger) -> None:
    [name] = packed.packs.names()
    size = len(packed.files.read(name))
    assert size > 1e6 and len(STAGE.evaluations) == 12
    Counted.forget()
    assert all(len(packed.read_lines(step.path, NAME)) == 250 for step in STAGE.evaluations)
    assert sum(Counted.bytes_read) < 2 * size, f"{sum(Counted.bytes_read):,} bytes of a pack of {size:,}"
    reads = [request for request in Counted.requests if request.endswith(name) and request.startswith("read")]
    assert len(reads) <= 3, reads


def test_a_view_reads_the_answers_in_one_pack_in_few_requests(packed: Ledger) -> None:
    view = RecordView(packed)
    assert all(len(view.read_lines(step.path, NAME)) == 250 for step in STAGE.evaluations)
    assert len(Counted.requests) <= 10, Counted.requests
    assert view.read_lines(STAGE.evaluations[0].path, "none.jsonl") == []


def test_answers_of_a_sweep_elsewhere_are_listed_in_few_requests(tmp_path: Path) -> None:
    sweep = load_sweep(write_sweep(tmp_path, SWEEP))
    fill(sweep, tmp_path / "store", questions=4, samples=True)
    local = Ledger(str(tmp_path / "store"))
    rows = list(sample_rows(sweep, local))
    packs = pack(local).packs
    elsewhere = counted_copy(tmp_path / "store")
    assert list(sample_rows(sweep, elsewhere)) == rows and rows
    assert len(Counted.requests) <= 3 * packs + 20, f"{len(Counted.requests)} requests for {packs} packs"


@pytest.mark.parametrize("kind", ["folder", "elsewhere"])
def test_a_pack_that_was_written_again_is_read_again(tmp_path: Path, kind: str) -> None:
    local = Ledger(str(tmp_path))
    for step in STEPS:
        if step is not OTHER:
            compute(local, step)
    pack(local)
    ledger = local if kind == "folder" else counted_copy(tmp_path)
    other = Ledger(ledger.store)
    for _ in range(3):
        assert ledger.read_lines(ASKED.path, "rows.jsonl")[0]["score"] == 50.0 and not ledger.has(OTHER)
    other.quarantine(ASKED.path)
    assert not ledger.has(ASKED)
    compute(other, ASKED, 60.0)
    compute(other, OTHER)
    assert pack(other).steps == 2
    assert ledger.read_lines(ASKED.path, "rows.jsonl")[0]["score"] == 60.0 and ledger.has(OTHER)


def test_a_view_says_which_answers_are_damaged(packed: Ledger) -> None:
    [name] = packed.packs.names()
    content = bytearray(packed.files.read(name))
    first = STAGE.evaluations[0].path
    place = content.index(f"{first}/{NAME}".encode()) + len(first) + 60
    content[place] ^= 1
    packed.files.write(name, bytes(content))
    with pytest.raises(DamagedError, match=NAME):
        RecordView(packed).read_lines(first, NAME)
    assert len(RecordView(packed).read_lines(STAGE.evaluations[1].path, NAME)) == 250
