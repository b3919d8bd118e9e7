"""Records read through the index: the same as from the store itself, in few requests, and never older than the store."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from counted_store import Counted, counted_copy
from made import made_trial, write_sweep
from packed_ledger import ASKED, OTHER, STEPS, compute
from synthetic_ledger import fill, finished_sweep

from lmmcl.config.sweep import load_sweep
from lmmcl.inspection.audit import check_store
from lmmcl.inspection.gc import needed_weights
from lmmcl.inspection.status import sweep_status
from lmmcl.ledger import Ledger
from lmmcl.ledger.index import stamps
from lmmcl.ledger.index.segment import decode_segment, encode_segment
from lmmcl.ledger.index.view import MOST_SEGMENTS, RecordView, index_records
from lmmcl.ledger.packs.packing import pack
from lmmcl.ledger.record import RECORD, Record
from lmmcl.planning.plan import make_plan
from lmmcl.reports.collect import collect
from lmmcl.reports.tables.export import as_dict
from lmmcl.steps import Evaluate


@pytest.fixture
def counted(tmp_path: Path) -> Ledger:
    """A store elsewhere with the small sweep finished."""
    assert finished_sweep(tmp_path).trials
    return counted_copy(tmp_path / "store")


def test_a_report_from_the_index_is_that_from_the_records(tmp_path: Path) -> None:
    sweep, ledger = finished_sweep(tmp_path), Ledger(str(tmp_path / "store"))
    plain = as_dict(collect(sweep, ledger))
    index_records(ledger, list(sweep.steps.values()))
    assert len(list((tmp_path / "store" / "index").iterdir())) == 1
    view = RecordView(ledger)
    for step in sweep.steps.values():
        fields = dict(ledger.find(step).fields)  # type: ignore[union-attr]
        found = dict(view.find(step).fields)  # type: ignore[union-attr]
        if "sample_scores" in fields:
            assert found.pop("sample_scores").tolist() == fields.pop("sample_scores")
        assert found == fields
    indexed = as_dict(collect(sweep, ledger))
    for each in (plain, indexed):
        each["provenance"] = None
    assert json.dumps(plain) == json.dumps(indexed)


def test_what_the_store_says_counts_and_not_what_the_index_remembers(tmp_path: Path) -> None:
    sweep, ledger = finished_sweep(tmp_path), Ledger(str(tmp_path / "store"))
    index_records(ledger, list(sweep.steps.values()))
    gone, changed, damaged = [step for step in sweep.steps.values() if isinstance(step, Evaluate)][:3]
    files = [ledger.files.at(f"{step.path}/{RECORD}") for step in (gone, changed, damaged)]
    files[0].unlink()
    files[1].write_text(files[1].read_text().replace('"score": ', '"score": 1'))
    files[2].write_text("{")
    view = RecordView(ledger)
    assert not view.has(gone) and view.find(gone) is None
    assert view.find(changed)["score"] == ledger.find(changed)["score"] > 100  # type: ignore[index]
    assert not view.has(damaged) and view.find(damaged) is None
    status = sweep_status(sweep, ledger)
    assert status.recorded == status.wanted - 2


def test_a_damaged_index_is_said_and_the_records_are_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sweep, ledger = finished_sweep(tmp_path), Ledger(str(tmp_path / "store"))
    index_records(ledger, list(sweep.steps.values()))
    [file] = (tmp_path / "store" / "index").iterdir()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    view = RecordView(ledger)
    assert all(view.has(step) for step in sweep.steps.values())
    assert "checksum mismatch; the records themselves are read" in caplog.text
    assert [damage.why for damage in check_store(ledger, repair=True).damages] == ["checksum mismatch"]
    assert not file.exists() and check_store(ledger).damages == []


@pytest.mark.parametrize("content", [b"", b"\n", b"no line ends here", b"a line\nand no more"])
def test_what_is_not_an_index_is_refused_as_damaged(content: bytes) -> None:
    with pytest.raises(ValueError, match="checksum mismatch"):
        decode_segment(content)


def test_an_object_store_is_looked_at_in_few_requests_once_there_is_an_index(counted: Ledger, tmp_path: Path) -> None:
    sweep = load_sweep(tmp_path / "small.yaml")
    records = len(sweep.steps)
    Counted.delay = 0.002
    try:
        make_plan(sweep, counted)
        assert len(Counted.requests) >= records, "nothing is in the index yet"
        assert Counted.together[1] > 4, "reads are under way together"
    finally:
        Counted.delay = 0.0
    index_records(counted, list(sweep.steps.values()))
    looks = (
        lambda: make_plan(sweep, counted),
        lambda: sweep_status(sweep, counted),
        lambda: needed_weights(sweep.steps.values(), counted),
    )
    for look in looks:
        Counted.requests.clear()
        look()
        assert len(Counted.requests) <= 10, Counted.requests
    Counted.requests.clear()
    assert collect(sweep, counted).recorded == records
    curves = [request for request in Counted.requests if "curve" in request or RECORD in request]
    assert len(Counted.requests) <= 10 and not curves, "a table shows no curve"


def test_many_files_of_an_index_become_one(tmp_path: Path) -> None:
    sweep, ledger = finished_sweep(tmp_path), Ledger(str(tmp_path / "store"))
    steps = list(sweep.steps.values())
    portions = [steps[at :: MOST_SEGMENTS + 1] for at in range(MOST_SEGMENTS + 1)]
    for portion in portions:
        index_records(ledger, portion)
    [file] = (tmp_path / "store" / "index").iterdir()
    assert set(decode_segment(file.read_bytes()).stamps) == {step.path for step in steps}


def test_a_view_writes_each_record_to_the_index_once(tmp_path: Path) -> None:
    sweep, ledger = finished_sweep(tmp_path), Ledger(str(tmp_path / "store"))
    view = RecordView(ledger)
    assert all(view.has(step) for step in sweep.steps.values())
    view.keep(least=1)
    view.keep(least=1)
    assert len(list((tmp_path / "store" / "index").iterdir())) == 1


def test_a_store_that_cannot_be_written_is_read_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep, ledger = finished_sweep(tmp_path), Ledger(str(tmp_path / "store"))

    def refuse(name: str, content: bytes) -> None:
        raise PermissionError(name)

    monkeypatch.setattr(ledger.files, "write", refuse)
    index_records(ledger, list(sweep.steps.values()))
    assert not (tmp_path / "store" / "index").exists()
    assert make_plan(sweep, ledger).recorded == make_plan(sweep, ledger).wanted


@pytest.mark.parametrize(
    "scores", [[0.0, 1.0, 1, 0], [0.3, 0.6000000000000001, 1.0], [1e-320, 255.0], [], [300.0]], ids=str
)
def test_scores_come_back_to_the_bit(scores: list[float]) -> None:
    record = Record("scores/a/b-0", {"key": "k", "kind": "evaluate", "parents": [], "sample_scores": scores})
    segment = decode_segment(encode_segment([("stamp", record)]))
    found = segment.record("scores/a/b-0").fields["sample_scores"]
    assert np.asarray(found, dtype=np.float64).tolist() == [float(each) for each in scores]


def test_the_key_of_a_score_is_the_hash_of_its_identity() -> None:
    from lmmcl.steps.keys import key_of

    trial = made_trial(skills=("a", "b"), held_out=("kept", "other"))
    asked = [step for stage in trial.stages for step in stage.evaluations]
    assert [step.key for step in asked] == [key_of(step.identity()) for step in asked]
    assert len({step.key for step in asked}) == len(asked)


def test_a_larger_sweep_writes_its_index_when_it_is_looked_at(tmp_path: Path) -> None:
    rates = ", ".join(f"{1e-5 * (place + 1):.5f}" for place in range(12))
    text = f"name: wide\norders: {{main: [birds]}}\nbenchmarks: {{held_out: [colour]}}\ngrids:\n  - model: [tiny-onevision]\n    recipe: [sa_proj]\n    learning_rate: [{rates}]\n"
    sweep = load_sweep(write_sweep(tmp_path, text))
    fill(sweep, tmp_path / "store", questions=4)
    sweep_status(sweep, Ledger(str(tmp_path / "store")))
    fewer = len(sweep.steps) < 64
    assert (tmp_path / "store" / "index").exists() != fewer


def test_a_record_that_was_packed_after_its_pack_was_read_is_there(tmp_path: Path) -> None:
    ledger, other = Ledger(str(tmp_path)), Ledger(str(tmp_path))
    for step in STEPS:
        if step is not OTHER:
            compute(ledger, step)
    pack(ledger)
    compute(ledger, OTHER)
    view = RecordView(ledger)
    assert view.has(ASKED), "read from the pack, which the view keeps"
    assert pack(other).steps == 1
    assert view.find(OTHER) is not None and view.has(OTHER)


def test_one_new_record_is_indexed_without_a_look_at_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a store that is not packed, where each look is a round trip over NFS."""
    ledger, others = Ledger(str(tmp_path)), 3000
    compute(ledger, ASKED)
    entries = []
    for number in range(others):
        path = f"scores/m/other-{number:08x}/b-{number:08x}"
        ledger.files.write(f"{path}/{RECORD}", b"{}")
        stamp = stamps.local_stamp(str(tmp_path / path / RECORD))
        entries.append((str(stamp), Record(path, {"key": f"{number:08x}"})))
    ledger.files.write("index/0.records", encode_segment(entries))
    looks = []
    plain = stamps.local_stamp
    monkeypatch.setattr(stamps, "local_stamp", lambda file: looks.append(file) or plain(file))
    index_records(ledger, [ASKED])
    assert len(list((tmp_path / "index").iterdir())) == 2
    assert len(looks) < others / 10, f"{len(looks)} looks"


def test_a_segment_whose_records_were_written_again_is_dropped_with_what_is_outdated_in_it(tmp_path: Path) -> None:
    ledger, entries = Ledger(str(tmp_path)), []
    compute(ledger, ASKED)
    for number in range(400):
        path = f"scores/m/other-{number:08x}/b-{number:08x}"
        ledger.files.write(f"{path}/{RECORD}", b"{}")
        stamp = str(stamps.local_stamp(str(tmp_path / path / RECORD))) if number % 4 == 0 else "another"
        entries.append((stamp, Record(path, {"key": f"{number:08x}"})))
    ledger.files.write("index/0.records", encode_segment(entries))
    index_records(ledger, [ASKED])
    [file] = (tmp_path / "index").iterdir()
    right = {record.path for stamp, record in entries if stamp != "another"}
    assert set(decode_segment(file.read_bytes()).stamps) == {ASKED.path, *right}
