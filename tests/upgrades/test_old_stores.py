"""Stores that earlier builds wrote, one for each format of records and weights: read, reported, extended and repaired.

stores/NAME.zip     the store, without its pages, as the first build that wrote this format left it after one small sweep
stores/NAME.yaml    that sweep
expected.json       when it was written, its last checkpoint, and the SHA-256 of the weights that the same build exported
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from made import write_sweep
from pretended import Pretence, lmmcl, pretence, run, told  # noqa: F401 - pretence is a fixture

from lmmcl.inspection.audit import check_store
from lmmcl.ledger import Ledger
from lmmcl.ledger.packs.packing import pack, unpack
from lmmcl.ledger.record import KINDS

STORES = Path(__file__).parent / "stores"
EXPECTED: dict[str, dict[str, Any]] = json.loads((STORES / "expected.json").read_text(encoding="utf-8"))
CHECKPOINTS, RECORDS = 3, 12  # each checkpoint was asked three benchmarks of four questions


@pytest.fixture(params=sorted(EXPECTED))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def _as_many_questions_as_were_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pretended.QUESTIONS", 4)


@pytest.fixture
def sweep(name: str, tmp_path: Path) -> Path:
    """The sweep of an old store, which lies beside it."""
    with zipfile.ZipFile(STORES / f"{name}.zip") as archive:
        archive.extractall(tmp_path / "store")
    return write_sweep(tmp_path, (STORES / f"{name}.yaml").read_text(encoding="utf-8"))


def records(ledger: Ledger) -> dict[str, dict[str, Any]]:
    """The fields of all records, by path."""
    read = {path: ledger.read(path) for kind in KINDS for path in ledger.paths(kind)}
    return {path: dict(record.fields) for path, record in read.items() if record is not None}


def test_there_is_a_store_of_each_format() -> None:
    assert {path.stem for path in STORES.glob("*.zip")} == set(EXPECTED) and len(EXPECTED) >= 5
    assert sum(path.stat().st_size for path in STORES.iterdir()) < 400_000


def test_an_old_store_is_whole_and_each_of_its_steps_can_be_shown(name: str, sweep: Path) -> None:
    store = sweep.parent / "store"
    ledger = Ledger(str(store))
    audit = check_store(ledger)
    assert not audit.damages and not audit.orphans and sum(audit.records.values()) == RECORDS
    assert len(json.loads(lmmcl("list", "steps", "--json", "--store", store).stdout)) == CHECKPOINTS
    for path, fields in records(ledger).items():
        facts = json.loads(lmmcl("show", fields["key"], "--json", "--store", store).stdout)
        assert facts["step"] == path and facts["identity"]["key"] == fields["key"]
    facts = json.loads(lmmcl("show", EXPECTED[name]["last"], "--json", "--store", store).stdout)
    assert set(facts["scores"]) == {"counting", "clock", "colour"} and len(facts["chain"]) >= 2


def test_an_old_store_is_reported_and_extended_and_its_records_stay(sweep: Path, pretence: Pretence) -> None:  # noqa: F811
    ledger = Ledger(str(sweep.parent / "store"))
    before = records(ledger)
    told("plan", sweep), told("status", sweep), told("report", sweep)
    assert run(sweep, "--set", "grids[0].seed=[0,1]").exit_code == 0
    report = told("report", sweep, "--set", "grids[0].seed=[0,1]")
    assert [trial["state"] for trial in report["trials"]] == ["done", "done"]
    after = records(Ledger(ledger.store))
    assert all(after[path] == fields for path, fields in before.items()) and len(after) > len(before)
    computed = list(pretence.computed)
    assert run(sweep, "--set", "grids[0].seed=[0,1]").exit_code == 0 and pretence.computed == computed


def test_an_old_store_can_be_packed_and_unpacked(sweep: Path) -> None:
    ledger = Ledger(str(sweep.parent / "store"))
    unpack(ledger)
    before = records(Ledger(ledger.store))
    assert len(before) == RECORDS
    assert not pack(ledger).left and records(Ledger(ledger.store)) == before
    assert not check_store(Ledger(ledger.store)).damages
    unpack(ledger)
    assert records(Ledger(ledger.store)) == before


def test_damage_in_an_old_store_is_found_and_repaired(sweep: Path, pretence: Pretence) -> None:  # noqa: F811
    ledger = Ledger(str(sweep.parent / "store"))
    unpack(ledger)
    weights = sorted(sweep.parent.glob("store/checkpoints/*/*/**/*.safetensors"))
    cut = [*sorted(sweep.parent.glob("store/scores/*/*/*/record.json"))[::4], weights[-1]]
    for file in cut:
        file.write_bytes(file.read_bytes()[:-30])
    found = {damage.path for damage in check_store(ledger, repair=True).damages}
    assert all(any(file.as_posix().startswith(f"{ledger.store}/{path}") for path in found) for file in cut)
    assert len(records(Ledger(ledger.store))) == RECORDS - len(cut)
    assert not check_store(Ledger(ledger.store)).damages
    assert run(sweep).exit_code == 0 and told("report", sweep)["trials"][0]["state"] == "done"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_weights_of_an_old_store_are_exported_as_the_build_that_wrote_them_did(name: str, sweep: Path) -> None:
    from safetensors import safe_open

    expected, to = EXPECTED[name], sweep.parent / "exported"
    if expected["export"] is None:
        pytest.skip("experts answer with more than one plain model, which is not exported")
    assert lmmcl("export", expected["last"], "--to", to, "--store", sweep.parent / "store").exit_code == 0
    digest = hashlib.sha256()
    with safe_open(to / "model.safetensors", "pt") as weights:
        for tensor_name in sorted(weights.keys()):
            tensor = weights.get_tensor(tensor_name)
            digest.update(tensor_name.encode() + str(tensor.dtype).encode() + tensor.float().numpy().tobytes())
    assert digest.hexdigest() == expected["export"]
