"""Digests of files are remembered as long as the files stay as they were, and computed where nothing can be remembered."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lmmcl.tasks.files import digest
from lmmcl.tasks.files.digest import DigestCache, cache_folder, state_of

OLD = (1_000_000_000, 1_000_000_000)


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are old enough to be remembered as soon as they are written."""
    monkeypatch.setattr(digest, "SETTLED", -1)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    os.utime(path, OLD)
    return path


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_digest_is_the_sha256_of_the_bytes_in_the_order_asked(tmp_path: Path) -> None:
    states = [state_of(write(tmp_path / name, name.encode())) for name in ("a", "b")]
    cache = DigestCache(tmp_path / "cache")
    assert cache.digests([*states, states[0]]) == [sha(b"a"), sha(b"b"), sha(b"a")]


@pytest.mark.usefixtures("settled")
def test_an_unchanged_file_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = state_of(write(tmp_path / "a", b"one"))
    DigestCache(tmp_path / "cache").digests([state])
    monkeypatch.setattr("lmmcl.tasks.files.digest.hash_file", lambda _: "read")
    assert DigestCache(tmp_path / "cache").digests([state]) == [sha(b"one")]
    larger, later = state._replace(size=4), state._replace(mtime_ns=state.mtime_ns + 1)
    assert DigestCache(tmp_path / "cache").digests([larger, later]) == ["read", "read"]


def test_a_file_changed_just_now_is_not_remembered(tmp_path: Path) -> None:
    """Its next change may fall into the same tick of the file system's clock."""
    cache = DigestCache(tmp_path / "cache")
    state = state_of(write(tmp_path / "a", b"one"))  # its modification time may say what it will
    assert cache.digests([state]) == [sha(b"one")]
    (tmp_path / "a").write_bytes(b"two")
    assert cache.digests([state]) == [sha(b"two")]


def put_in_place(path: Path, content: bytes) -> None:
    """As `rsync -a` does: a new file with the old one's name and modification time."""
    write(path.with_name("new"), content).replace(path)


def overwrite(path: Path, content: bytes) -> None:
    write(path, content)


def link_elsewhere(path: Path, content: bytes) -> None:
    write(path.with_name("other"), content)
    path.unlink()
    path.symlink_to(path.with_name("other"))


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("change", [put_in_place, overwrite, link_elsewhere])
def test_a_file_replaced_by_one_of_its_size_and_time_is_seen(change: Callable, tmp_path: Path) -> None:
    cache, path = DigestCache(tmp_path / "cache"), write(tmp_path / "a", b"one")
    before = state_of(path)
    assert cache.digests([before]) == [sha(b"one")]
    change(path, b"two")
    after = state_of(path)
    assert (after.size, after.mtime_ns) == (before.size, before.mtime_ns)
    assert cache.digests([after]) == [sha(b"two")]


@pytest.mark.usefixtures("settled")
def test_a_folder_that_a_link_leads_to_may_change(tmp_path: Path) -> None:
    for name, content in (("first", b"one"), ("second", b"two")):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "a", content)
    cache, link = DigestCache(tmp_path / "cache"), tmp_path / "current"
    for name, content in (("first", b"one"), ("second", b"two")):
        link.unlink(missing_ok=True)
        link.symlink_to(name)
        assert cache.digests([state_of(link / "a")]) == [sha(content)]
    digest._resolved_folder.cache_clear()
    assert state_of(link / "a").resolved == str((tmp_path / "second" / "a").resolve())


def test_a_path_through_a_link_and_back_is_the_file_that_the_system_finds(tmp_path: Path) -> None:
    (tmp_path / "deep" / "folder").mkdir(parents=True)
    (tmp_path / "link").symlink_to("deep/folder")
    write(tmp_path / "deep" / "a", b"one")
    assert state_of(tmp_path / "link" / ".." / "a").size == 3


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        state_of(tmp_path)


def test_a_cache_that_cannot_be_written_is_said_and_nothing_else_changes(tmp_path: Path) -> None:
    state = state_of(write(tmp_path / "a", b"one"))
    cache = DigestCache(tmp_path / "a")  # a file stands where the folder should be
    with pytest.warns(RuntimeWarning, match="digests are not remembered"):
        assert cache.digests([state]) == [sha(b"one")]
    with pytest.warns(RuntimeWarning, match="digests are not remembered"):
        assert cache.recall("key") is None


def test_a_damaged_cache_is_said_and_nothing_else_changes(tmp_path: Path) -> None:
    (tmp_path / "digests.sqlite").write_bytes(b"no database at all, but long enough to be looked at" * 10)
    with pytest.warns(RuntimeWarning, match=r"digests\.sqlite"):
        assert DigestCache(tmp_path).digests([state_of(write(tmp_path / "a", b"one"))]) == [sha(b"one")]


def test_memos_are_kept(tmp_path: Path) -> None:
    DigestCache(tmp_path).remember("key", "value")
    assert DigestCache(tmp_path).recall("key") == "value"


def _fill(folder: Path, names: list[str]) -> None:
    digest.SETTLED = -1  # in a process of its own
    for name in names:
        DigestCache(folder / "cache").digests([state_of(folder / name)])


def test_processes_share_a_cache(tmp_path: Path) -> None:
    names = [str(number) for number in range(40)]
    for name in names:
        write(tmp_path / name, name.encode())
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_fill, args=(tmp_path, names[start::2])) for start in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    known = DigestCache(tmp_path / "cache")._known([state_of(tmp_path / name) for name in names])
    assert len(known) == len(names)


def test_the_cache_lies_where_the_user_keeps_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/lmmcl")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "lmmcl"


def test_a_long_memo_does_not_slow_the_others_down(tmp_path: Path) -> None:
    """What the rows of a large file say takes megabytes, and is looked past when images are looked up."""
    cache = DigestCache(tmp_path)
    keys = [f"image:{hashlib.sha256(str(number).encode()).hexdigest()}" for number in range(5000)]
    cache.remember_many(dict.fromkeys(keys, ""))
    middle = sorted(keys)[2500]
    cache.remember(f"{middle}~", "x" * 20_000_000)
    started = time.process_time()
    assert len(cache.recall_many(keys)) == 5000
    cache.remember_many(dict.fromkeys(keys, "again"))
    assert time.process_time() - started < 2
