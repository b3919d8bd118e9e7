"""The same sweep in an object store: the record comes last, damage is reported and repaired, space is freed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from made import made_trial, write_sweep
from s3 import damage, s3_server
from shared_runs import two_runs, wanted
from typer.testing import CliRunner, Result

from lmmcl.cli import app
from lmmcl.config.cluster import ClaimSettings
from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.errors import UserError
from lmmcl.inspection.audit import check_store
from lmmcl.ledger import Ledger
from lmmcl.ledger.leases import FOLDER, RENEWALS, Leases
from lmmcl.ledger.record import RECORD, DamagedError
from lmmcl.steps import Finetune

ONE_TRIAL = """
name: small
orders:
  main: [counting, clock]
benchmarks: {held_out: [colour]}
training: {max_steps: 2, examples: 16, global_batch_size: 8, precision: fp32}
evaluation: {precision: fp32, limit: 4}
grids:
  - {model: [tiny-onevision], recipe: [sa_proj], learning_rate: [1.0e-3]}
"""
STEP = made_trial().stages[1].checkpoint


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_server() as uri:
        yield uri


@pytest.fixture(params=["local", "s3"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    if request.param == "local":
        return Ledger(str(tmp_path / "store"))
    return Ledger(f"{request.getfixturevalue('bucket')}/{tmp_path.name}")


def lmmcl(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def run(sweep: Path, ledger: Ledger) -> Result:
    return lmmcl("run", sweep, "--store", ledger.store, "--inline", "--mlflow", "off")


def finish(ledger: Ledger, content: str = "weights") -> None:
    with ledger.writing(STEP) as draft:
        (draft.folder / "delta.safetensors").write_text(content)
        (draft.folder / "adapter").mkdir()
        (draft.folder / "adapter" / "adapter_config.json").write_text("{}")
        draft.commit({"value": content})


def content(ledger: Ledger, name: str = "delta.safetensors", folder: str = STEP.path) -> str:
    with ledger.opened(folder, name) as path:
        return path.read_text()


def scores(sweep: Path, ledger: Ledger) -> dict[str, Any]:
    return {
        key: ledger.find(step)["sample_scores"]
        for key, step in load_sweep(sweep).steps.items()
        if step.kind == "evaluate"
    }


def test_files_are_found_where_their_record_says(ledger: Ledger) -> None:
    ledger.check_writable()
    finish(ledger)
    assert content(ledger) == "weights"
    assert content(ledger, "adapter_config.json", f"{STEP.path}/adapter") == "{}"
    with ledger.opened(STEP.path, "never.safetensors") as path:
        assert not path.exists()
    assert ledger.paths() == [STEP.path]
    assert abs(time.time() - ledger.files.changed(f"{STEP.path}/{RECORD}")) < 600
    assert check_store(ledger).damages == []


def test_a_file_of_an_object_store_is_read_or_missed_in_one_request(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from s3fs import S3FileSystem

    ledger, asked, ask = Ledger(f"{bucket}/{tmp_path.name}"), [], S3FileSystem._call_s3
    finish(ledger)
    ledger.files.write("empty", b"")

    async def counted(self: Any, method: str, *arguments: Any, **more: Any) -> Any:
        asked.append(method)
        return await ask(self, method, *arguments, **more)

    monkeypatch.setattr(S3FileSystem, "_call_s3", counted)
    assert b'"value"' in ledger.files.read(f"{STEP.path}/{RECORD}")
    assert ledger.files.read(f"{STEP.path}/{RECORD}", size=1) == b"{"
    with pytest.raises(FileNotFoundError):
        ledger.files.read(f"{STEP.path}/never.json")
    assert asked == ["get_object"] * 3
    assert ledger.files.read("empty") == b""


def test_a_folder_of_an_object_store_is_listed_in_one_look_whether_it_is_there_or_not(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from s3fs import S3FileSystem

    ledger, looks = Ledger(f"{bucket}/{tmp_path.name}"), []
    for name in ("notes/a/one.txt", "notes/a/two.json", "notes.txt", "notes-more/one.txt"):
        ledger.files.write(name, name.encode())

    def counted(name: str) -> Callable[..., Any]:
        plain = getattr(S3FileSystem, name)

        async def look(*arguments: Any, **more: Any) -> Any:
            looks.append(name)
            return await plain(*arguments, **more)

        return look

    for method in ("_lsdir", "_info", "_exists"):
        monkeypatch.setattr(S3FileSystem, method, counted(method))
    assert ledger.files.matches("notes/*/*.txt") == ["notes/a/one.txt"]
    assert ledger.files.sizes("notes") == {"a/one.txt": 15, "a/two.json": 16}
    assert list(ledger.files.stamps("notes", ".json")) == ["notes/a/two.json"]
    assert (ledger.files.matches("never/*.txt"), ledger.files.sizes("never"), ledger.files.stamps("never", "")) == (
        [],
        {},
        {},
    )
    assert looks == ["_lsdir"] * 6


def test_what_was_uploaded_before_a_kill_is_no_record_and_is_written_again(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(f"{bucket}/{tmp_path.name}")

    def die(name: str, content: bytes) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ledger.files, "create", die)  # the record
        with pytest.raises(KeyboardInterrupt):
            finish(ledger, "lost")
    assert ledger.find(STEP) is None
    audit = check_store(ledger)
    assert (audit.damages, len(audit.unfinished)) == ([], 1)
    finish(ledger, "kept")
    assert content(ledger) == "kept"


def test_of_two_that_upload_the_same_step_the_first_stays_whole(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(f"{bucket}/{tmp_path.name}")
    create, calls = ledger.files.create, []

    def meanwhile_another(name: str, said: bytes) -> bool:
        if not calls:
            calls.append(name)
            finish(ledger, "the other's")
        return create(name, said)

    monkeypatch.setattr(ledger.files, "create", meanwhile_another)
    finish(ledger, "ours")
    assert calls == [f"{STEP.path}/{RECORD}"]
    record = ledger.find(STEP)
    assert record is not None and record["value"] == content(ledger) == "the other's"
    assert {name.split("/")[0] for name in ledger.sizes(STEP.path)} == {RECORD, record["at"]}, "the late files are gone"


@pytest.mark.parametrize("truncate", [True, False], ids=["truncated", "changed"])
def test_a_damaged_file_is_told_and_its_step_counts_as_missing(ledger: Ledger, truncate: bool) -> None:
    finish(ledger)
    damage(ledger, STEP.path, "delta.safetensors", truncate=truncate)
    told = check_store(ledger).damages
    assert [each.path for each in told] == [STEP.path]
    assert ("bytes, not the" if truncate else "checksum mismatch") in told[0].why
    assert ledger.find(STEP) is not None, "a check changes nothing"
    with pytest.raises(DamagedError, match=f"{STEP.path}/delta.safetensors.*next run"):
        content(ledger)
    assert ledger.find(STEP) is None
    finish(ledger, "again")
    assert content(ledger) == "again"


def test_a_store_of_an_unknown_kind_is_refused_with_a_remedy() -> None:
    with pytest.raises(UserError, match=r"unknown-protocol.*--store"):
        Ledger("unknown-protocol://there/store").check_writable()


def test_two_runs_on_an_object_store_compute_each_step_once(bucket: str, tmp_path: Path) -> None:
    counts = two_runs(f"{bucket}/{tmp_path.name}", tmp_path / "diary")
    assert counts == dict.fromkeys(wanted(), 1)
    assert Ledger(f"{bucket}/{tmp_path.name}").sizes("claims") == {}


def test_of_many_that_create_a_file_in_an_object_store_one_does(bucket: str, tmp_path: Path) -> None:
    store = Ledger(f"{bucket}/{tmp_path.name}").files
    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda n: store.create("claims/a.json", str(n).encode()), range(6)))
    assert sum(made) == 1 and store.read("claims/a.json") == str(made.index(True)).encode()
    assert not store.create("claims/a.json", b"late"), "the server refuses, and nobody else's word is overwritten"
    assert store.read("claims/a.json") == str(made.index(True)).encode()


def test_a_process_that_was_stopped_for_longer_than_its_claim_spoils_nothing(ledger: Ledger, tmp_path: Path) -> None:
    claims = ClaimSettings(expiry_s=1.0)
    diary = tmp_path / "diary"
    stopped = multiprocessing.get_context("spawn").Process(target=slow_step, args=(ledger.store, str(diary), claims))
    stopped.start()
    wait_for(lambda: diary.exists() and "begun" in diary.read_text())
    assert stopped.pid is not None
    os.kill(stopped.pid, signal.SIGSTOP)
    waiting = Leases(ledger.files, claims, "another run")
    begun = time.monotonic()
    assert waiting.owner(STEP.key) is not None
    wait_for(lambda: waiting.owner(STEP.key) is None)
    assert time.monotonic() - begun >= claims.expiry_s
    with waiting.held([STEP.key]) as held:
        assert held.keys == {STEP.key}
        os.kill(stopped.pid, signal.SIGCONT)  # both compute it now
        wait_for(lambda: "again" in diary.read_text())
        time.sleep(2 * claims.expiry_s / RENEWALS)
        holder = Leases(ledger.files, claims, "a third").owner(STEP.key)
        assert holder is not None and holder.pid == os.getpid(), "who was stopped does not take it back"
        finish(ledger, "in time")
    Path(f"{diary}.end").touch()
    stopped.join(60)
    assert stopped.exitcode == 0
    record = ledger.find(STEP)
    assert record is not None and record["value"] == content(ledger) == "in time"
    assert check_store(ledger).damages == [] and ledger.sizes(FOLDER) == {}


def slow_step(store: str, diary: str, claims: ClaimSettings) -> None:
    """A process that claims a step, tells when it continued after a stop, and records the step when it may."""
    note, ledger = Path(diary), Ledger(store)
    with Leases(ledger.files, claims, "a run").held([STEP.key]):
        note.write_text("begun")
        while not Path(f"{diary}.end").exists():
            before = time.monotonic()
            time.sleep(0.05)
            if time.monotonic() - before > claims.expiry_s:
                note.write_text("begun again")
        finish(ledger, "late")


def wait_for(there: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_sweep_in_an_object_store_is_computed_checked_repaired_freed_and_extended(
    bucket: str, tmp_path: Path
) -> None:
    sweep = write_sweep(tmp_path, ONE_TRIAL)
    here, there = Ledger(str(tmp_path / "here")), Ledger(f"{bucket}/{tmp_path.name}")
    assert run(sweep, here).exit_code == 0
    done = run(sweep, there)
    assert done.exit_code == 0, done.output
    assert scores(sweep, there) == scores(sweep, here)
    assert "0 steps computed" in run(sweep, there).output
    assert lmmcl("ledger", "check", "--store", there.store).exit_code == 0
    _damage_is_computed_again(sweep, here, there)
    _dropped_weights_come_back_when_they_are_asked_for(sweep, here, there)


def _damage_is_computed_again(sweep: Path, here: Ledger, there: Ledger) -> None:
    first = _stages(load_sweep(sweep))[0]
    damage(there, first.path, "delta.safetensors")
    checked = lmmcl("ledger", "check", "--store", there.store)
    assert (checked.exit_code, first.path in checked.output) == (1, True)
    longer = write_sweep(sweep.parent, ONE_TRIAL.replace("[colour]", "[colour, shape]"), "longer.yaml")
    repaired = run(longer, there)
    assert repaired.exit_code == 0, repaired.output
    assert run(longer, here).exit_code == 0
    assert scores(longer, there) == scores(longer, here)
    assert lmmcl("ledger", "check", "--store", there.store).exit_code == 0


def _dropped_weights_come_back_when_they_are_asked_for(sweep: Path, here: Ledger, there: Ledger) -> None:
    longer = sweep.parent / "longer.yaml"
    before = scores(longer, there)
    would = json.loads(lmmcl("gc", longer, "--store", there.store, "--dry-run", "--json").stdout)
    assert len(would["weights"]) == 2 and would["bytes"] > 0
    assert would == json.loads(lmmcl("gc", longer, "--store", there.store, "--dry-run", "--json").stdout)
    freed = json.loads(lmmcl("gc", longer, "--store", there.store, "--json").stdout)
    assert freed["weights"] == would["weights"]
    assert json.loads(lmmcl("gc", longer, "--store", there.store, "--json").stdout)["weights"] == {}
    assert scores(longer, there) == before
    assert "0 steps computed" in run(longer, there).output
    assert lmmcl("ledger", "check", "--store", there.store).exit_code == 0
    longest = write_sweep(sweep.parent, ONE_TRIAL.replace("[colour]", "[colour, shape, size]"), "longest.yaml")
    assert run(longest, there).exit_code == 0
    assert run(longest, here).exit_code == 0
    assert scores(longest, there) == scores(longest, here)


def _stages(sweep: Sweep) -> list[Finetune]:
    return [step for step in sweep.steps.values() if isinstance(step, Finetune)]
