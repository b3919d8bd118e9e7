"""Packing and unpacking stopped at each write, on a crashing machine, beside readers and runs: nothing is lost, nothing is left over."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from packed_ledger import (
    ASKED,
    BASE,
    FIRST,
    SECOND,
    STEPS,
    check,
    compute,
    files,
    flip,
    read_all,
)
from s3 import s3_server

from lmmcl.cli.completion import checkpoints
from lmmcl.inspection.audit import check_store
from lmmcl.ledger import ASIDE, Ledger
from lmmcl.ledger.index.view import RecordView
from lmmcl.ledger.packs import packing
from lmmcl.ledger.packs.packed_files import pack_of
from lmmcl.ledger.packs.packing import pack, unpack
from lmmcl.ledger.record import KINDS, RECORD
from lmmcl.ledger.store import Store


class Killed(BaseException):
    """The process ends here."""


def killed_after(count: int, monkeypatch: pytest.MonkeyPatch, do: Callable[[Ledger], Any], ledger: Ledger) -> bool:
    """`do`, stopped before its write or removal of that number; whether there was one."""
    done: list[str] = []

    def guarded(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(store: Store, name: str, *arguments: Any, **more: Any) -> Any:
            if not name.startswith("claims/"):
                if len(done) >= count:
                    raise Killed
                done.append(name)
            return real(store, name, *arguments, **more)

        return call

    with monkeypatch.context() as patched:
        patched.setattr(packing, "AT_ONCE", {True: 1, False: 1})
        patched.setattr(Store, "write", guarded(Store.write))
        patched.setattr(Store, "remove", guarded(Store.remove))
        try:
            do(ledger)
        except Killed:
            return True
        return False


@pytest.mark.parametrize("do", [pack, unpack])
def test_a_kill_between_any_two_writes_loses_nothing_and_leaves_nothing_over(
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    do: Callable[[Ledger], Any],
) -> None:
    before, single = read_all(ledger), files(ledger)
    pack(ledger)
    begun = single if do is pack else files(ledger)
    stopped, count = True, 0
    while stopped:
        for kind in ("packs", *KINDS):
            ledger.files.remove_folder(kind)
        for name, content in begun.items():
            ledger.files.write(name, content)
        stopped = killed_after(count, monkeypatch, do, ledger)
        audit = check_store(ledger)
        assert read_all(ledger) == before and not (audit.damages or audit.unfinished or audit.orphans), count
        assert pack(ledger).left == {} and len(files(ledger)) == 5 and read_all(ledger) == before, count
        count += 2
    assert count > 30


def test_a_pack_is_on_disk_before_it_takes_the_place_of_an_older_one(
    local: Ledger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    local.files.remove_folder(ASKED.path)
    pack(local)
    compute(local, ASKED)
    events: list[str] = []
    replace, fsync = Path.replace, os.fsync

    def replaced(path: Path, target: Path) -> Path:
        events.append(f"replace {target.suffix}")
        return replace(path, target)

    def synced(handle: int) -> None:
        events.append(f"sync {Path(f'/proc/self/fd/{handle}').readlink().name[:1]}")
        fsync(handle)

    monkeypatch.setattr(Path, "replace", replaced)
    monkeypatch.setattr(os, "fsync", synced)
    pack(local)
    place = events.index("replace .zip")
    assert events[place - 1] == "sync .", "the new content, under the name that it has until then"
    assert events[place + 1] == f"sync {BASE.model.label[:1]}", "and the folder"


def test_single_files_are_on_disk_before_a_pack_is_deleted(local: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(local)
    seen: list[int] = []
    monkeypatch.setattr(
        os, "sync", lambda: seen.append(len(local.packs.names()) + len(local.files.matches("**/step.json")))
    )
    unpack(local)
    assert seen == [3 + len(STEPS)]


def test_a_pack_that_fails_to_be_written_again_keeps_what_was_packed_before(
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = files(ledger)
    ledger.files.remove_folder(ASKED.path)
    pack(ledger)
    for name, data in content.items():
        if name.startswith(ASKED.path):
            ledger.files.write(name, data)
    before, real, broken = read_all(ledger), Store.write, [True]

    def write(store: Store, name: str, data: bytes, **how: Any) -> None:
        real(store, name, data[:-9] if name.endswith(".zip") and broken.pop() else data, **how)

    with monkeypatch.context() as patched, pytest.raises(Exception, match="what was read back"):
        patched.setattr(Store, "write", lambda *args, **how: write(*args, **how) if broken else real(*args, **how))
        pack(ledger)
    assert read_all(ledger) == before and check_store(ledger).damages == []


def test_a_process_that_was_stopped_while_it_packed_overwrites_no_newer_pack(
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger.files.remove_folder(ASKED.path)
    real, other = packing.encode_pack, Ledger(ledger.store)

    def encode(content: Any) -> bytes:
        with monkeypatch.context() as patched:
            patched.setattr(packing, "encode_pack", real)
            patched.setattr(packing, "MAINTENANCE", "the claim became void")
            pack(other)
            compute(other, ASKED)
            pack(other)
        return real(content)

    single_step, calls = packing._single_step, []

    def slow(*arguments: Any) -> dict[str, bytes]:
        found = single_step(*arguments)
        if not calls:
            calls.append("once")
            encode({})
        return found

    monkeypatch.setattr(packing, "AT_ONCE", {True: 1, False: 1})
    monkeypatch.setattr(packing, "_single_step", slow)
    monkeypatch.setattr(packing.Leases, "active", lambda *_: {})
    done = pack(ledger)
    assert "was written by another process meanwhile" in "".join(done.left.values())
    assert all(Ledger(ledger.store).find(step) is not None for step in STEPS)


@pytest.mark.parametrize("do", [pack, unpack])
def test_a_view_that_began_before_a_store_was_packed_or_unpacked_finds_all(
    ledger: Ledger,
    do: Callable[[Ledger], Any],
) -> None:
    if do is unpack:
        pack(ledger)
    asked, begun = RecordView(ledger), RecordView(ledger)
    for step in STEPS:
        asked.is_packed(step)
    for step in (BASE, FIRST, SECOND):
        begun.is_packed(step)
    do(ledger)
    for view in (asked, begun):
        view.prefetch(STEPS)
        assert all(view.has(step) and view.find(step) is not None for step in STEPS)


def test_an_object_store_that_is_packed_while_it_is_listed_shows_all(
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, packed = Store.stamps, threading.Event()

    def stamps(store: Store, folder: str, ending: Any) -> dict[str, str]:
        if folder in KINDS:  # its listing takes longer than packing all
            assert packed.wait(20)
            return real(store, folder, ending)
        listed = real(store, folder, ending)
        if not packed.is_set():
            pack(Ledger(store.uri))
            packed.set()
        return listed

    monkeypatch.setattr(Store, "stamps", stamps)
    view = RecordView(ledger)
    view.prefetch(STEPS)
    assert all(view.find(step) is not None for step in STEPS)


def test_files_that_go_while_a_folder_is_listed_are_left_out(local: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmmcl.ledger.packs import listing

    real = listing.walk_files

    def walk(root: str, **how: Any) -> Any:
        for number, entry in enumerate(list(real(root, **how))):
            if number == 1:
                os.unlink(entry.path)  # noqa: PTH108 - as another process does
            yield entry

    whole = len(local.sizes(ASKED.path))
    monkeypatch.setattr(listing, "walk_files", walk)
    assert len(local.sizes(ASKED.path)) == whole - 1


def test_a_step_is_published_though_its_empty_parent_folder_goes_meanwhile(
    local: Ledger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    local.files.remove_folder(f"scores/{FIRST.path.removeprefix('checkpoints/')}")
    real, parent, gone = Path.rename, local.files.at(ASKED.path).parent, []

    def rename(path: Path, target: Path) -> Path:
        if Path(target).parent == parent and not gone:
            gone.append(parent)
            parent.rmdir()
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    compute(local, ASKED)
    assert gone and local.find(ASKED) is not None


def test_repairing_a_pack_keeps_the_files_of_a_step_whose_weights_were_dropped(ledger: Ledger) -> None:
    pack(ledger)
    ledger.drop_weights(FIRST.path)
    before = read_all(ledger)
    flip(ledger, f"{FIRST.path}/{RECORD}".encode())
    assert check_store(ledger, repair=True).damages
    assert check_store(ledger).damages == [] and read_all(ledger) == before


def test_a_checkpoint_whose_name_is_damaged_in_its_pack_is_none_once_repaired(local: Ledger) -> None:
    pack(local)
    name = pack_of(FIRST.path)
    assert name is not None
    local.files.write(name, local.files.read(name).replace(FIRST.path.encode(), b"C" + FIRST.path.encode()[1:], 1))
    assert check(local, "--repair").exit_code == 1 and check(local).exit_code == 0
    assert FIRST.path not in local.paths() and local.find(FIRST) is None
    assert local.find(ASKED) is not None, "its scores stay"


def test_a_quarantined_record_of_a_pack_is_kept_as_that_of_a_single_file_is(ledger: Ledger) -> None:
    content = ledger.files.read(f"{ASKED.path}/{RECORD}")
    pack(ledger)
    flip(ledger, ASKED.path.encode() + b"/rows.jsonl") if ledger.is_local else ledger.quarantine(ASKED.path)
    check_store(ledger, repair=True)
    assert ledger.files.read(f"{ASKED.path}/{ASIDE}") == content
    unpack(ledger)
    assert ledger.find(ASKED) is None and ledger.files.read(f"{ASKED.path}/{ASIDE}") == content


def test_a_listing_that_is_older_than_the_last_packing_changes_nothing(
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, old = read_all(ledger), {kind: ledger.sizes(kind) for kind in KINDS}
    pack(ledger)
    monkeypatch.setattr(Store, "sizes", lambda _, folder: old[folder])
    again = pack(ledger)
    monkeypatch.undo()
    assert again.left == {} and read_all(ledger) == before


def test_an_empty_pack_on_s3_is_reported_at_once_and_repaired() -> None:
    with s3_server() as uri:
        there = Ledger(f"{uri}/a store [1]#% größe")
        for step in STEPS:
            compute(there, step)
        before = read_all(there)
        pack(there)
        assert read_all(there) == before
        name = pack_of(FIRST.path)
        assert name is not None
        there.files.write(name, b"")
        assert [damage.path for damage in check_store(there, repair=True).damages] == [name]
        assert there.find(FIRST) is None and there.find(BASE) is not None


def test_packed_checkpoints_are_completed(local: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMMCL_STORE", local.store)
    monkeypatch.setattr("lmmcl.cli.completion._sweeps", lambda _: [])
    monkeypatch.setattr("lmmcl.cli.completion._store", lambda _: Path(local.store))
    before = checkpoints(None, None, "1-")
    pack(local)
    assert checkpoints(None, None, "1-") == before == [FIRST.path.rpartition("/")[2]]


def test_what_a_killed_write_left_under_another_name_goes_with_the_next_packing(local: Ledger) -> None:
    pack(local)
    name = pack_of(FIRST.path)
    unfinished = [
        f"packs/{BASE.model.label}/.{Path(str(name)).name}.{'0a' * 16}",
        f"{ASKED.path}/.step.json.{'0b' * 16}",
    ]
    kept = f"{ASKED.path}/.notes.{'0c' * 16}"
    for file in (*unfinished, kept):
        local.files.write(file, b"half")
    assert pack(local).left == {}
    assert not any(local.files.exists(file) for file in unfinished) and local.files.exists(kept)


@pytest.mark.parametrize("do", [pack, unpack])
def test_an_opened_file_stays_while_the_store_is_packed_or_unpacked(
    ledger: Ledger, do: Callable[[Ledger], Any]
) -> None:
    if do is unpack:
        pack(ledger)
    with ledger.opened(ASKED.path, "step.json") as file:
        do(Ledger(ledger.store))
        assert ASKED.key in file.read_text()
