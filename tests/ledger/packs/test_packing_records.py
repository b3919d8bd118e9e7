"""Packed steps: few files, the same records and files, whatever is interrupted, computed again, dropped or damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from packed_ledger import ASKED, DAMAGED, FIRST, OTHER, STEPS, check, compute, files, read_all
from typer.testing import CliRunner

from lmmcl.cli import app
from lmmcl.config.cluster import ClaimSettings
from lmmcl.inspection.audit import check_store
from lmmcl.ledger import ASIDE, Ledger
from lmmcl.ledger.index.view import RecordView, index_records
from lmmcl.ledger.leases import MAINTENANCE, Leases
from lmmcl.ledger.packs import packing, single_files
from lmmcl.ledger.packs.packed_files import pack_of
from lmmcl.ledger.packs.packing import Busy, Packed, pack, unpack
from lmmcl.ledger.record import KINDS, RECORD, DamagedError


def test_packed_steps_are_read_as_before_from_a_third_of_the_files(ledger: Ledger) -> None:
    before, many = read_all(ledger), len(files(ledger))
    done = pack(ledger)
    assert (done.packs, done.steps, done.left) == (3, len(STEPS), {})
    assert read_all(ledger) == before
    left = files(ledger)
    assert (
        sorted(name.rpartition("/")[2] for name in left if not name.startswith("packs/")) == ["delta.safetensors"] * 2
    )
    assert len(left) == 5 and done.files == many - 2
    with ledger.opened(FIRST.path, "delta.safetensors") as weights:
        assert weights.read_text() == "weights 50.0"
    assert (
        check_store(ledger).summary()
        == f"{len(STEPS) - 3} evaluate, 2 finetune, 1 pretrained; 0 damaged, 0 unfinished, 0 without parent"
    )


def test_packing_again_changes_nothing(ledger: Ledger) -> None:
    pack(ledger)
    before = files(ledger)
    assert pack(ledger) == Packed()
    assert files(ledger) == before


def test_unpacking_gives_the_single_files_back(ledger: Ledger) -> None:
    before = files(ledger)
    pack(ledger)
    assert unpack(ledger).steps == len(STEPS)
    assert files(ledger) == before


def test_a_store_that_was_copied_or_unzipped_by_hand_is_read_too(local: Ledger, tmp_path: Path) -> None:
    before, single = read_all(local), files(local)
    pack(local)
    moved = Ledger(str(tmp_path / "moved [1]"))
    shutil.copytree(local.store, moved.store)
    assert read_all(moved) == before
    for name in moved.packs.names():
        shutil.unpack_archive(moved.files.at(name), moved.store)
        moved.files.remove(name)
    assert files(moved) == single


def test_a_score_added_later_lies_beside_the_pack_and_joins_it(ledger: Ledger) -> None:
    whole = read_all(ledger)
    ledger.files.remove_folder(OTHER.path)
    pack(ledger)
    assert ledger.find(OTHER) is None and ledger.find(ASKED) is not None
    compute(ledger, OTHER)
    fields = ledger.find(OTHER)
    assert fields is not None and fields["score"] == 50.0
    assert pack(ledger).steps == 1
    assert read_all(ledger).keys() == whole.keys()
    assert read_all(ledger)["paths"] == whole["paths"] and len(ledger.packs.names()) == 3


@pytest.mark.parametrize("again", ["quarantined", "dropped"])
def test_what_is_computed_again_takes_the_place_of_what_is_packed(ledger: Ledger, again: str) -> None:
    pack(ledger)
    if again == "quarantined":
        ledger.quarantine(FIRST.path)
        assert ledger.find(FIRST) is None and RecordView(ledger).find(FIRST) is None
        assert FIRST.path not in ledger.paths() and FIRST.path not in RecordView(ledger).paths()
    else:
        assert ledger.drop_weights(FIRST.path) > 0
        record = ledger.find(FIRST)
        assert record is not None and not record.has_weights and record["score"] == 50.0
    assert not ledger.has_usable(FIRST)
    compute(ledger, FIRST, 70.0)
    for _ in range(2):
        record, viewed = ledger.find(FIRST), RecordView(ledger).find(FIRST)
        assert record is not None and viewed is not None and record["score"] == viewed["score"] == 70.0
        assert ledger.read_lines(FIRST.path, "rows.jsonl")[0]["score"] == 70.0
        with ledger.opened(FIRST.path, "delta.safetensors") as weights:
            assert weights.read_text() == "weights 70.0"
        assert check_store(ledger).damages == []
        pack(ledger)
    assert not ledger.files.exists(f"{FIRST.path}/{RECORD}") and not ledger.files.exists(f"{FIRST.path}/{ASIDE}")
    assert ledger.find(ASKED) is not None, "the scores of the checkpoint stay"


def test_dropped_weights_are_said_after_packing_again(ledger: Ledger) -> None:
    pack(ledger)
    ledger.drop_weights(FIRST.path)
    pack(ledger)
    record = ledger.find(FIRST)
    assert record is not None and not record.has_weights and not ledger.files.exists(f"{FIRST.path}/{RECORD}")
    assert ledger.read_lines(FIRST.path, "rows.jsonl") == [{"of": FIRST.key, "score": 50.0}]
    assert check_store(ledger).dropped == 1


def test_of_two_that_computed_the_same_step_the_packed_one_stays(ledger: Ledger) -> None:
    pack(ledger)
    compute(ledger, ASKED, 70.0)
    record = ledger.find(ASKED)
    assert record is not None and record["score"] == 50.0
    assert not ledger.files.exists(f"{ASKED.path}/{RECORD}")


def stopped(monkeypatch: pytest.MonkeyPatch, name: str, after: int) -> None:
    """Let a part of packing raise after that many calls, as a kill would."""
    real, calls = getattr(packing, name), []

    def part(*arguments: Any) -> Any:
        calls.append(name)
        if len(calls) > after:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(packing, name, part)
    monkeypatch.setattr(packing, "AT_ONCE", {True: 1, False: 1})


@pytest.mark.parametrize(("part", "after"), [("_write", 0), ("_write", 2), ("remove_step", 0), ("remove_step", 2)])
def test_a_kill_while_packing_loses_nothing(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, part: str, after: int
) -> None:
    before = read_all(ledger)
    with monkeypatch.context() as patched:
        stopped(patched, part, after)
        with pytest.raises(KeyboardInterrupt):
            pack(ledger)
    assert read_all(ledger) == before and check_store(ledger).damages == []
    assert pack(ledger).left == {}
    assert read_all(ledger) == before and len(files(ledger)) == 5


def test_a_kill_between_two_files_of_a_step_loses_nothing(local: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_all(local)
    removed: list[str] = []
    real = type(local.files).remove

    def remove(files: Any, name: str) -> None:
        if name.startswith(KINDS):
            removed.append(name)
            if len(removed) == 2:
                raise KeyboardInterrupt
        real(files, name)

    monkeypatch.setattr(packing, "AT_ONCE", {True: 1, False: 1})
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(type(local.files), "remove", remove)
        pack(local)
    assert removed[0].endswith(RECORD), "the record goes first: what is left is read from the pack"
    assert read_all(local) == before and check_store(local).damages == []


def test_a_full_disk_while_packing_leaves_the_single_files(local: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(local)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packing, "_write", full)
    with pytest.raises(OSError, match="No space"):
        pack(local)
    assert files(local) == before


def test_a_pack_that_does_not_read_back_as_written_costs_no_single_file(
    local: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = type(local.files).write
    monkeypatch.setattr(
        type(local.files),
        "write",
        lambda files, name, content, **how: real(files, name, content[:-9] if ".zip" in name else content, **how),
    )
    before = files(local)
    with pytest.raises(Exception, match="what was read back is not what was written"):
        pack(local)
    assert {name: content for name, content in files(local).items() if not name.startswith("packs/")} == before


def test_a_damaged_step_is_not_packed_and_stays_to_be_found(ledger: Ledger) -> None:
    record = ledger.find(ASKED)
    assert record is not None
    ledger.files.write(f"{record.folder}/rows.jsonl", b"changed")
    done = pack(ledger)
    assert list(done.left) == [ASKED.path] and "rows.jsonl is missing or fails its checksum" in done.left[ASKED.path]
    assert ledger.files.exists(f"{ASKED.path}/{RECORD}") and not ledger.files.exists(f"{OTHER.path}/{RECORD}")
    assert [damage.path for damage in check_store(ledger).damages] == [ASKED.path]


def test_nothing_is_packed_while_a_step_is_computed_or_another_process_packs(ledger: Ledger) -> None:
    before = files(ledger)
    with Leases(ledger.files, ClaimSettings()).held([FIRST.key]), pytest.raises(Busy, match="is computing steps"):
        pack(ledger)
    with packing.maintenance(ledger):
        for do in (pack, unpack):
            with pytest.raises(Busy, match="is packing, repairing or clearing this store"):
                do(ledger)
    assert files(ledger) == before
    assert MAINTENANCE not in Leases(ledger.files, ClaimSettings()).active()


def test_records_of_older_versions_without_checksums_are_packed_as_they_are(local: Ledger) -> None:
    path = local.files.at(ASKED.path)
    record = {"key": ASKED.key, "kind": "evaluate", "parents": [FIRST.path], "score": 1.0}
    (path / RECORD).write_text(json.dumps(record))
    before = read_all(local)
    assert pack(local).left == {}
    assert read_all(local) == before and not path.exists()


def test_large_files_stay_single(local: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_all(local)
    monkeypatch.setattr(single_files, "LARGEST", 100)
    pack(local)
    assert local.files.exists(f"{ASKED.path}/step.json") and not local.files.exists(f"{ASKED.path}/rows.jsonl")
    assert read_all(local) == before and check_store(local).damages == []


def test_the_index_knows_packed_records_and_not_those_of_an_older_pack(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(ledger)
    index_records(ledger, STEPS)
    with monkeypatch.context() as patched:
        patched.setattr(type(ledger.packs), "open", lambda *_, **__: pytest.fail("a pack was read"))
        view = RecordView(Ledger(ledger.store))
        view.prefetch(STEPS)
        assert all(view.has(step) and view.find(step) is not None for step in STEPS)
        first = view.fingerprint(STEPS)
    ledger.drop_weights(FIRST.path)
    pack(ledger)
    view = RecordView(Ledger(ledger.store))
    record = view.find(FIRST)
    assert record is not None and not record.has_weights
    assert view.fingerprint(STEPS) != first


def test_a_pack_that_lacks_a_step_has_no_record_of_it(ledger: Ledger) -> None:
    ledger.files.remove_folder(OTHER.path)
    pack(ledger)
    view = RecordView(ledger)
    view.prefetch(STEPS)
    assert not view.has(OTHER) and view.find(OTHER) is None and view.fingerprint(STEPS) is None


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_flipped_byte_in_a_pack_is_reported_by_record_and_repaired(local: Ledger, kind: str) -> None:
    pack(local)
    name = DAMAGED[kind](local)
    before = files(local)
    reported = check(local)
    assert reported.exit_code == 1 and files(local) == before
    lines = [line for line in reported.output.splitlines() if f"(in {name})" in line]
    assert [line.partition(":")[0] for line in lines] == [ASKED.path], reported.output
    if kind == "a file":
        with pytest.raises(DamagedError, match="checksum"), local.opened(ASKED.path, "rows.jsonl", quarantine=False):
            pass
    else:
        assert local.find(ASKED) is None
    assert all(local.find(step) is not None for step in STEPS if step != ASKED)
    assert check(local, "--repair").exit_code == 1
    assert local.find(ASKED) is None and check(local).exit_code == 0
    compute(local, ASKED, 70.0)
    assert pack(local).left == {} and check(local).exit_code == 0
    record = local.find(ASKED)
    assert record is not None and record["score"] == 70.0 and not local.files.at(ASKED.path).exists()


def test_whatever_byte_of_a_pack_is_flipped_the_check_says_where(local: Ledger) -> None:
    pack(local)
    name = pack_of(FIRST.path)
    assert name is not None
    content, steps = local.files.read(name), {step.path for step in STEPS}
    for place in range(0, len(content), 61):
        local.files.write(name, content[:place] + bytes([content[place] ^ 0x20]) + content[place + 1 :])
        damages = check_store(local).damages
        assert len({damage.path for damage in damages}) == 1, place
        assert damages[0].path in {*steps, name}, place


def test_a_flipped_byte_that_costs_no_record_is_reported_and_repaired(local: Ledger) -> None:
    pack(local)
    name = pack_of(FIRST.path)
    assert name is not None
    content = local.files.read(name)
    local.files.write(name, content[:-1] + b"!")
    before = read_all(local)
    reported = check(local)
    assert reported.exit_code == 1 and f"{name}: does not match its checksum" in reported.output
    assert check(local, "--repair").exit_code == 1 and check(local).exit_code == 0
    assert local.files.read(name) == content and read_all(local) == before


def test_weights_beside_a_pack_are_checked(local: Ledger) -> None:
    pack(local)
    local.files.at(f"{FIRST.path}/delta.safetensors").write_text("WEIGHTS 50.0")
    assert f"{FIRST.path}: delta.safetensors checksum mismatch" in check(local).output


def test_the_commands_say_what_they_did(local: Ledger) -> None:
    run = CliRunner()
    packed = run.invoke(app, ["ledger", "pack", "--store", local.store])
    assert packed.exit_code == 0 and f"packed {len(STEPS)} steps" in packed.output and "into 3 packs" in packed.output
    back = run.invoke(app, ["ledger", "unpack", "--store", local.store, "--json"])
    assert json.loads(back.output)["steps"] == len(STEPS)
    local.files.at(f"{ASKED.path}/rows.jsonl").write_text("changed")
    left = run.invoke(app, ["ledger", "pack", "--store", local.store])
    assert left.exit_code == 1 and f"{ASKED.path}: rows.jsonl is missing or fails its checksum" in left.output
