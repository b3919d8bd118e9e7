"""A private folder says whose it is; what is not surely of a process of this machine is nobody's to judge."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from lmmcl.ledger import owners
from lmmcl.ledger.owners import STALE, is_stale, is_written, key_of, private_name

GONE = "999999999"


def named(host: str, pid: str = GONE, more: str = "") -> Path:
    return Path(f"0a1b-{host}-{pid}-ab_12{more}")


def test_a_folder_of_this_process_is_written_and_one_of_a_process_that_went_is_not() -> None:
    folder = Path(f"{private_name('0a1b')}ab_12")
    assert is_written(folder)
    assert is_written(Path(f"lmmcl-{folder}"))
    assert is_written(Path(str(folder).replace(str(os.getpid()), GONE))) is False
    assert is_written(Path(str(folder).replace(str(os.getpid()), GONE) + "-replaced")) is False
    assert key_of(folder) == key_of(Path(f"lmmcl-{folder}")) == "0a1b"


@pytest.mark.parametrize("prefix", ["gpu-", "far."])
def test_a_host_whose_name_ends_like_that_of_this_one_is_another(prefix: str) -> None:
    assert is_written(named(owners._owner())) is False
    assert is_written(named(prefix + owners._owner())) is None


def test_a_container_with_the_name_of_this_host_counts_its_processes_for_itself() -> None:
    if not Path("/proc/self/ns/pid").is_symlink():
        pytest.skip("this system has no rooms of processes")
    assert is_written(named(f"{socket.gethostname()}.1")) is None


@pytest.mark.parametrize("name", ["lmmcl-read-abc", "lmmcl-0a1b-left-12345678", "0a1b", "notes"])
def test_of_a_folder_with_another_name_nothing_is_said(name: str) -> None:
    assert is_written(Path(name)) is None


def test_a_folder_is_as_old_as_the_newest_in_it(tmp_path: Path) -> None:
    inside = tmp_path / "folder" / "deeper" / "file"
    inside.parent.mkdir(parents=True)
    inside.write_text("")
    long_ago = time.time() - STALE - 60
    for path in (inside.parent, tmp_path / "folder"):
        os.utime(path, (long_ago, long_ago))
    assert not is_stale(tmp_path / "folder")
    os.utime(inside, (long_ago, long_ago))
    assert is_stale(tmp_path / "folder")
    assert not is_stale(tmp_path / "gone meanwhile")
