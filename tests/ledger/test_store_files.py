"""A run waits for a store that is out of reach, reports a full disk, and keeps its results when an upload fails."""

from __future__ import annotations

import errno
import os
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pytest
from made import made_trial

from lmmcl.config.cluster import Cluster
from lmmcl.ledger import Ledger
from lmmcl.ledger import store as module
from lmmcl.ledger.owners import private_name
from lmmcl.ledger.record import RECORD, step_files
from lmmcl.ledger.store import Store, StoreError, is_full
from lmmcl.runner import execute

STEP = made_trial().stages[1].checkpoint


class AwayError(Exception):
    """What an object store's client raises when nobody answers."""


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """A store that is elsewhere; this node's folder is the test's own, and nobody really waits."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    return Ledger(f"memory://{tmp_path.name}")


@pytest.fixture
def away(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that makes the store fail a number of times in a row; returns the calls it got."""

    def fail(times: int, error: Exception | None = None, only: str = "") -> list[str]:
        asked: list[str] = []

        def call(plain: Any, *arguments: Any, **more: Any) -> Any:
            if any(only in str(each) for each in arguments):
                asked.append(str(arguments[0]))
                if len(asked) <= times:
                    raise error or AwayError("could not connect to the endpoint")
            return plain(*arguments, **more)

        for name in ("cat_file", "pipe_file", "put_file", "get_file"):
            monkeypatch.setattr(ledger.files.fs, name, partial(call, getattr(ledger.files.fs, name)))
        return asked

    return fail


def finish(ledger: Ledger, content: str = "weights") -> None:
    with ledger.writing(STEP) as draft:
        (draft.folder / "delta.safetensors").write_text(content)
        draft.commit({"value": content})


def test_a_store_that_is_away_for_a_moment_is_waited_for(ledger: Ledger, away: Any) -> None:
    away(3)
    finish(ledger)
    record = ledger.find(STEP)
    assert record is not None and record["value"] == "weights"


def test_a_store_that_stays_away_is_told_with_what_is_kept(ledger: Ledger, away: Any) -> None:
    asked = away(1000)
    with pytest.raises(StoreError, match=r"cannot be reached \(AwayError: could not connect.*finished work is kept"):
        ledger.find(STEP)
    assert len(asked) == module.PATIENCE.retries + 1


@pytest.mark.parametrize("error", [PermissionError("no"), ValueError("no such bucket name")])
def test_what_waiting_does_not_mend_is_told_at_once(ledger: Ledger, away: Any, error: Exception) -> None:
    asked = away(1000, error)
    with pytest.raises(type(error)):
        ledger.files.read("a")
    assert len(asked) == 1


def test_missing_credentials_are_not_waited_for(ledger: Ledger, away: Any) -> None:
    asked = away(1000, type("NoCredentialsError", (Exception,), {})("unable to locate credentials"))
    with pytest.raises(StoreError, match="unable to locate credentials"):
        ledger.files.read("a")
    assert len(asked) == 1


def test_a_failed_upload_records_nothing_and_costs_no_second_computation(ledger: Ledger, away: Any) -> None:
    away(module.PATIENCE.retries + 1, only=RECORD)  # all files but the last
    with pytest.raises(StoreError, match="cannot be reached"):
        finish(ledger)
    assert ledger.find(STEP) is None
    assert ledger.is_staged(STEP)
    execute.compute([STEP], ledger, Cluster(), lambda *_: None)  # has no model to train
    record = ledger.find(STEP)
    assert record is not None and record["value"] == "weights"
    assert not ledger.is_staged(STEP)


def test_what_a_process_was_uploading_when_it_was_killed_is_uploaded_by_the_next(ledger: Ledger) -> None:
    deferring = ledger.deferring(STEP)
    finish(deferring)
    staged = ledger.node.staged(STEP.key)
    killed = private_name(STEP.key).replace(f"-{os.getpid()}-", "-999999999-")
    staged.rename(ledger.node.folder / f"lmmcl-{killed}abc")
    assert ledger.is_staged(STEP)
    assert ledger.upload(STEP)["value"] == "weights"


def test_half_of_a_step_is_not_taken_for_staged(ledger: Ledger) -> None:
    finish(ledger.deferring(STEP))
    (ledger.node.staged(STEP.key) / "delta.safetensors").write_text("weigh")
    assert not ledger.is_staged(STEP)


def test_a_deferred_step_is_recorded_by_its_upload_alone(ledger: Ledger) -> None:
    finish(ledger.deferring(STEP))
    assert ledger.find(STEP) is None, "a record means done, and nobody else can read it yet"
    ledger.upload(STEP)
    with ledger.opened(STEP.path, "delta.safetensors") as path:
        assert path.read_text() == "weights"


def test_weights_are_fetched_once_a_node(ledger: Ledger, away: Any) -> None:
    finish(ledger)
    asked = away(0, only="delta.safetensors")
    for _ in range(3):
        with ledger.opened(STEP.path, "delta.safetensors") as path:
            assert path.read_text() == "weights"
    assert asked == [], "the node that wrote them has them"
    for copy in step_files(ledger.node.folder / "copies"):
        copy.unlink()  # another node
    for _ in range(3):
        with ledger.opened(STEP.path, "delta.safetensors") as path:
            assert path.read_text() == "weights"
    assert len(asked) == 1


def test_a_damaged_copy_is_fetched_again_and_no_fault_of_the_store(ledger: Ledger) -> None:
    finish(ledger)
    (copy,) = (ledger.node.folder / "copies").rglob("delta.safetensors")
    copy.write_text("weighed")
    with ledger.opened(STEP.path, "delta.safetensors") as path:
        assert path.read_text() == "weights"
    assert ledger.find(STEP) is not None


def test_copies_that_were_not_used_for_longest_make_room(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr("lmmcl.ledger.node.shutil.disk_usage", lambda folder: usage)
    for number, at in enumerate(("old", "new")):
        folder = ledger.node.make_temp_dir("lmmcl-")
        (folder / "delta.safetensors").write_bytes(bytes(15))
        ledger.node.keep(at, folder)
        os.utime(ledger.node.folder / "copies" / at, (number, number)) if ledger.node.copy(
            at, "delta.safetensors"
        ) else None
    assert ledger.node.copy("old", "delta.safetensors") is None
    assert ledger.node.copy("new", "delta.safetensors") is not None
    folder = ledger.node.make_temp_dir("lmmcl-")
    (folder / "delta.safetensors").write_bytes(bytes(1000))
    ledger.node.keep("huge", folder)
    assert not folder.exists() and ledger.node.copy("huge", "delta.safetensors") is None


@pytest.mark.parametrize("place", ["folder", "elsewhere"])
def test_a_full_disk_is_told_with_a_remedy_and_nothing_finished_is_lost(
    place: str, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(str(tmp_path / "store")) if place == "folder" else ledger
    first = made_trial().stages[0].checkpoint
    with ledger.writing(first) as draft:
        draft.commit({})
    plain = Path.open

    def no_room(self: Path, mode: str = "r", *arguments: Any, **more: Any) -> Any:
        if "w" in mode and self.name == f"{RECORD}.partial":
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return plain(self, mode, *arguments, **more)

    monkeypatch.setattr(Path, "open", no_room)
    with pytest.raises(StoreError, match=("lmmcl gc" if place == "folder" else "TMPDIR") + ".*finished work is kept"):
        finish(ledger)
    monkeypatch.undo()
    assert ledger.find(STEP) is None and ledger.find(first) is not None
    assert ledger.being_written() == set(), "what was half written is not in the way"


def test_an_error_that_names_no_reason_is_told_as_a_full_disk_where_there_is_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(str(tmp_path / "store"))
    for free, told in {0: StoreError, 10**9: RuntimeError}.items():
        monkeypatch.setattr(module.shutil, "disk_usage", lambda folder, free=free: type("Usage", (), {"free": free}))
        with (
            pytest.raises(told, match="no space left" if told is StoreError else "unexpected pos"),
            ledger.writing(STEP),
        ):
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")


def test_an_error_after_the_files_were_staged_is_told_as_it_is(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise NotImplementedError("no such put")

    monkeypatch.setattr(ledger.files, "create", refuse)
    with pytest.raises(NotImplementedError, match="no such put"):
        finish(ledger)
    assert ledger.is_staged(STEP)


def test_a_claim_that_finds_no_room_is_told_with_a_remedy_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(self: Path, content: bytes) -> int:
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", no_room)
    with pytest.raises(StoreError, match=r"no space left on device; .*lmmcl gc"):
        Store(str(tmp_path)).create("claims/a.json", b"{}")
    assert list((tmp_path / "claims").iterdir()) == []


def test_a_full_disk_is_known_by_number_and_by_word() -> None:
    assert is_full(OSError(errno.EDQUOT, "over quota"))
    assert is_full(RuntimeError("I/O error: No space left on device (os error 28)"))
    try:
        try:
            raise OSError(errno.ENOSPC, "full")
        except OSError as error:
            raise RuntimeError("the writer failed") from error
    except RuntimeError as error:
        assert is_full(error)
    assert not is_full(OSError(errno.EIO, "input/output error"))


def test_a_store_travels_between_processes_by_its_name() -> None:
    store = Store("memory://somewhere")
    assert isinstance(store.fs, fsspec.AbstractFileSystem)
    assert pickle.loads(pickle.dumps(store)).uri == store.uri
