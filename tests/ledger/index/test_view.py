"""Records read through the index: the same as from the store itself, in few requests, and never older than the store."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from fsspec import register_implementation
from fsspec.implementations.memory import MemoryFileSystem
from made import made_trial, write_sweep
from synthetic_ledger import fill, finished_sweep

from lmmcl.config.sweep import load_sweep
from lmmcl.inspection.audit import check_store
from lmmcl.inspection.status import sweep_status
from lmmcl.ledger import Ledger
from lmmcl.ledger.index.segment import decode_segment, encode_segment
from lmmcl.ledger.index.view import MOST_SEGMENTS, RecordView, index_records
from lmmcl.ledger.record import RECORD, Record
from lmmcl.planning.plan import make_plan
from lmmcl.reports.collect import collect
from lmmcl.reports.tables.export import as_dict
from lmmcl.steps import Evaluate


class Counted(MemoryFileSystem):
    """An object store in memory that counts requests; a listing is one for each thousand names, as of S3."""

    protocol = "counted"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    requests: ClassVar[list[str]] = []
    together: ClassVar[list[int]] = [0, 0]
    lock = threading.Lock()
    delay = 0.0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.removeprefix("counted://")))

    def _count(self, what: str) -> None:
        with self.lock:
            self.requests.append(what)
            self.together[0] += 1
            self.together[1] = max(self.together)
        time.sleep(self.delay)
        with self.lock:
            self.together[0] -= 1

    def cat_file(self, path: str, *args: Any, **kwargs: Any) -> bytes:
        self._count(f"read {path}")
        return super().cat_file(path, *args, **kwargs)

    def find(self, path: str, *args: Any, **kwargs: Any) -> Any:
        found = super().find(path, *args, **kwargs)
        for _ in range(1 + len(found) // 1000):
            self._count(f"list {path}")
        return found


register_implementation("counted", Counted, clobber=True)


@pytest.fixture
def counted(tmp_path: Path) -> Ledger:
    """A store elsewhere with the small sweep finished."""
    Counted.store.clear()
    sweep = finished_sweep(tmp_path)
    assert sweep.trials
    for file in (tmp_path / "store").rglob("*"):
        if file.is_file():
            Counted().pipe_file(f"/bucket/{file.relative_to(tmp_path / 'store')}", file.read_bytes())
    Counted.requests.clear()
    Counted.together[:] = [0, 0]
    return Ledger("counted:///bucket")


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
    for look in (lambda: make_plan(sweep, counted), lambda: sweep_status(sweep, counted)):
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
