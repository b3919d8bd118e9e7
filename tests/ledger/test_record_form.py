"""A record whose fields hold what no reader could use is none: the step is computed again, and `ledger check` names the field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from packed_ledger import ASKED, STEPS, check, compute

from lmmcl.inspection.audit import check_store
from lmmcl.ledger import Ledger
from lmmcl.ledger.packs.packing import pack, unpack
from lmmcl.ledger.record import RECORD, DamagedError, Record, decode_record, encode_record

SOUND: dict[str, Any] = {"key": "0", "kind": "evaluate", "parents": ["checkpoints/m/0-base-1"], "label": "colour"}


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("sample_scores", [1.0, "right"], "sample_scores must be a list of numbers"),
        ("sample_scores", None, "sample_scores must be a list of numbers"),
        ("sample_scores", [1.0, None], "sample_scores must be a list of numbers"),
        ("sample_scores", [10**400], "sample_scores must be a list of numbers"),
        ("score", "99", "score must be a number"),
        ("seconds", True, "seconds must be a number"),
        ("updates", 1.5, "updates must be a whole number"),
        ("depth", -1, "depth must be a whole number"),
        ("parents", "checkpoints/m/0-base-1", "parents must be a list of texts"),
        ("parents", ["642a45a5ee057774"], "parents must be folders of checkpoints, of earlier stages"),
        ("values", {"bias": "high"}, "values must be a mapping of names to numbers"),
        ("files", {"step.json": {"bytes": 3}}, "files must be a mapping of file names to bytes and sha256"),
        ("provenance", "there", "provenance must be a mapping"),
        ("label", None, "label must be a text"),
        ("label", "", "label must be a text"),
    ],
)
def test_a_field_that_no_reader_could_use_makes_a_record_none(field: str, value: Any, why: str) -> None:
    with pytest.raises(ValueError, match=f"is not a valid record: {why}"):
        decode_record(encode_record({**SOUND, field: value}))


@pytest.mark.parametrize(
    ("kind", "depth", "parent", "sound"),
    [
        ("pretrained", 0, "0-base-1", False),
        ("finetune", 1, "0-base-1", True),
        ("finetune", 1, "1-birds-llm-1", False),
        ("merge", 1, "1-birds-llm-1", True),
        ("merge", 2, "3-router-1", True),
        ("merge", 2, "4-birds-llm-1", False),
        ("snapshot", 2, "2-birds-llm-1", True),
        ("snapshot", 2, "3-birds-llm-1", False),
    ],
)
def test_parents_lead_to_earlier_stages_so_that_whoever_follows_them_gets_to_an_end(
    kind: str, depth: int, parent: str, sound: bool
) -> None:
    fields = {**SOUND, "kind": kind, "depth": depth, "parents": [f"checkpoints/m/{parent}"]}
    if sound:
        assert decode_record(encode_record(fields)) == fields
    else:
        with pytest.raises(ValueError, match="parents must be folders of checkpoints, of earlier stages"):
            decode_record(encode_record(fields))


def test_fields_that_a_later_version_adds_are_left_as_they_are() -> None:
    fields = {**SOUND, "sample_scores": [], "score": None, "strategy": None, "added_later": [{"anything": None}]}
    assert decode_record(encode_record(fields)) == fields


def test_a_field_that_is_missing_is_named_and_not_a_key_error() -> None:
    with pytest.raises(DamagedError, match="the record has no 'sample_scores'"):
        Record("scores/m/1/colour-0", SOUND)["sample_scores"]


@pytest.mark.parametrize("packed", [False, True])
def test_the_check_names_the_field_and_repair_lets_the_step_be_computed_again(tmp_path: Path, packed: bool) -> None:
    ledger = Ledger(str(tmp_path))
    for step in STEPS:
        compute(ledger, step)
    record = ledger.read(ASKED.path)
    assert record is not None
    ledger.files.write(f"{ASKED.path}/{RECORD}", encode_record({**record.fields, "score": "high"}))
    if packed:
        pack(ledger)
    assert not Ledger(ledger.store).has(ASKED)
    assert f"{ASKED.path}: record.json is not a valid record: score must be a number" in check(ledger).output
    check_store(ledger, repair=True)
    compute(ledger, ASKED)
    assert all(Ledger(ledger.store).has(step) for step in STEPS)
    unpack(ledger)
    assert not check_store(Ledger(ledger.store)).damages
