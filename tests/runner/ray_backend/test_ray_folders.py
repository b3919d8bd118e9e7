"""What Ray and Tune keep in folders goes when a run ends; what a killed run left goes with the next one."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from lmmcl.ledger import Ledger
from lmmcl.ledger.owners import STALE, private_name
from lmmcl.runner.ray_backend import ray_folders
from lmmcl.runner.ray_backend.ray_folders import KEPT_SESSIONS, leave_working_folder, own_session, tune_storage


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "tmp"


@pytest.fixture(scope="module")
def gone() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def named(key: str, pid: int) -> str:
    """A name as a process of this machine gives it."""
    return f"{private_name(key).removesuffix(f'-{os.getpid()}-')}-{pid}-x"


def age(folder: Path) -> None:
    then = time.time() - STALE - 60
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (then, then))


def test_state_of_tune_is_removed_with_what_a_killed_run_left_and_not_that_of_a_living_one(
    tmp_path: Path, temporary: Path, gone: int
) -> None:
    parent = temporary / f"lmmcl-{os.getuid()}"
    killed, living = parent / named("lmmcl-tune", gone), parent / named("lmmcl-tune", os.getppid())
    for folder in (killed, living):
        (folder / "tune").mkdir(parents=True)
    with tune_storage(Ledger(str(tmp_path / "store")), here=True) as storage:
        assert Path(storage).is_dir()
        assert not killed.exists()
    assert list(parent.glob("lmmcl-tune-*")) == [living]
    assert not (tmp_path / "store").exists()


def test_on_a_joined_cluster_it_is_in_the_store_in_a_folder_of_the_run_alone(tmp_path: Path, gone: int) -> None:
    parent = tmp_path / "store" / ".ray"
    killed, elsewhere = parent / named("lmmcl-tune", gone), parent / "lmmcl-tune-other.1-5-x"
    earlier = parent / "tune"  # of a version that gave all runs one folder
    for folder in (killed, elsewhere, earlier):
        folder.mkdir(parents=True)
        (folder / "state.json").write_text("{}")
    age(earlier)
    ledger = Ledger(str(tmp_path / "store"))
    with tune_storage(ledger, here=False) as one, tune_storage(ledger, here=False) as other:
        assert one != other and Path(one).parent == Path(other).parent == parent
    assert list(parent.iterdir()) == [elsewhere], "another machine's, which may be at work"


def test_in_an_object_store_it_is_removed_as_well(gone: int) -> None:
    ledger = Ledger("memory://folders/store")
    killed = f".ray/{named('lmmcl-tune', gone)}/tune/state.json"
    ledger.files.write(killed, b"{}")
    with tune_storage(ledger, here=False) as storage:
        assert not ledger.files.exists(killed)
        ledger.files.write(f"{storage.removeprefix(ledger.store)}/tune/state.json".lstrip("/"), b"{}")
        assert ledger.sizes(".ray")
    assert ledger.sizes(".ray") == {}


def test_logs_of_the_last_sessions_stay_and_older_ones_of_ended_runs_go(tmp_path: Path, gone: int) -> None:
    def session(number: int, *marks: str) -> Path:
        folder = tmp_path / f"session_2026-01-{number:02}_00-00-00_0_{number}"
        (folder / "logs").mkdir(parents=True)
        for mark in marks:
            (folder / mark).touch()
        return folder

    ended = [session(number, named("lmmcl-session", gone)) for number in range(3, 3 + KEPT_SESSIONS + 4)]
    living, others = session(1, named("lmmcl-session", os.getppid())), session(2)
    own = session(28)
    own_session(own)
    kept = ended[-KEPT_SESSIONS:]
    assert sorted(tmp_path.iterdir()) == sorted([living, others, own, *kept])


def test_a_process_leaves_no_folder_of_a_trial_behind_but_that_of_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_folders, "_left", [])
    folders = [tmp_path / "working_dirs" / str(number) for number in range(3)]
    for folder in folders:
        folder.mkdir(parents=True)
        monkeypatch.chdir(folder)
        leave_working_folder()
    assert list((tmp_path / "working_dirs").iterdir()) == folders[-1:]
    (folders[-1] / "written.txt").touch()
    monkeypatch.chdir(tmp_path)
    leave_working_folder()
    assert folders[-1].exists(), "somebody wrote into it"
    assert tmp_path.exists()
