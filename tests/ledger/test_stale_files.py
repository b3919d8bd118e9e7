"""What killed processes left is swept, in the store and on each node; what somebody works on is not, however old it is."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from made import made_trial

from lmmcl.config.cluster import ClaimSettings
from lmmcl.ledger import Ledger
from lmmcl.ledger.leases import Leases
from lmmcl.ledger.owners import STALE
from lmmcl.ledger.pending_record import PARTIAL
from lmmcl.ledger.stale_files import stale_files

STEP = made_trial().stages[1].checkpoint


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """A store that is elsewhere; this node's folder is the test's own."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return Ledger(f"memory://{tmp_path.name}")


def made(folder: Path, *, days: float = 0) -> Path:
    """A folder with a file in a folder, all of them so old."""
    file = folder / "checkpoint-10" / "model.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("weights")
    aged(folder, days)
    return folder


def aged(folder: Path, days: float) -> None:
    then = time.time() - days * 24 * 3600
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (then, then))


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    with ledger.writing(STEP) as draft:
        dead = made(draft.folder.with_name(draft.folder.name.replace(str(os.getpid()), "999999999")))
        aged(draft.folder, days=30)
        assert stale_files(ledger) == [dead]
        assert ledger.being_written() == {STEP.key}
        ledger.remove_abandoned()
        assert draft.folder.exists() and not dead.exists()
    assert not any((tmp_path / PARTIAL).iterdir())
    dead.mkdir()
    assert ledger.being_written() == set(), "what was killed is not shown as running"


def test_what_another_machine_writes_is_swept_a_week_after_its_last_change_unless_it_is_claimed(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    folder = made(tmp_path / PARTIAL / f"{STEP.key}-far-away-1-abc", days=8)
    with Leases(ledger.files, ClaimSettings(), "a run on it").held([STEP.key]):
        ledger.remove_abandoned()
        assert folder.exists(), "a stage of eight days"
    (folder / "checkpoint-10" / "model.safetensors").write_text("more weights")
    ledger.remove_abandoned()
    assert folder.exists()
    aged(folder, days=STALE / 86400 + 1)
    ledger.remove_abandoned()
    assert not folder.exists()


@pytest.mark.parametrize(
    "name", ["runs/KEY", "staged/KEY", "lmmcl-KEY-left-abc", "lmmcl-KEY-far-1-abc", "lmmcl-read-a"]
)
def test_a_node_forgets_what_nobody_came_back_for(remote: Ledger, name: str) -> None:
    folder = made(remote.node.folder / name.replace("KEY", STEP.key), days=6)
    remote.remove_abandoned()
    assert folder.exists(), "it may be resumed"
    aged(folder, days=8)
    (newest := folder / "checkpoint-10" / "model.safetensors").write_text("more weights")
    os.utime(folder / "checkpoint-10", (1.0, 1.0))
    os.utime(folder, (1.0, 1.0))
    remote.remove_abandoned()
    assert newest.exists(), "its folder is old, its weights are not"
    aged(folder, days=8)
    remote.remove_abandoned()
    assert not folder.exists()


@pytest.mark.parametrize("name", ["runs/KEY", "lmmcl-KEY-left-abc"])
def test_a_node_keeps_what_a_claimed_step_may_come_back_for(remote: Ledger, name: str) -> None:
    folder = made(remote.node.folder / name.replace("KEY", STEP.key), days=30)
    with Leases(remote.files, ClaimSettings(), "a run").held([STEP.key]):
        remote.remove_abandoned()
        assert folder.exists()


def test_a_node_keeps_what_a_living_process_writes_and_its_copies(remote: Ledger) -> None:
    copy = made(remote.node.folder / "copies" / "0a1b", days=30)
    with remote.writing(STEP) as draft:
        made(draft.folder, days=30)
        remote.remove_abandoned()
        assert draft.folder.exists()
    assert copy.exists(), "copies go when they need room"


def test_whoever_begins_a_step_on_a_node_sweeps_it(remote: Ledger) -> None:
    folder = made(remote.node.folder / "runs" / "0a1b", days=8)
    with remote.writing(STEP):
        assert not folder.exists()


@pytest.mark.parametrize("where", ["local", "remote"])
def test_what_a_recorded_stage_kept_for_being_resumed_goes_when_a_run_begins(
    where: str, tmp_path: Path, remote: Ledger
) -> None:
    """A process may end between the record of a stage and the removal of the Trainer's checkpoints."""
    ledger = Ledger(str(tmp_path / "store")) if where == "local" else remote
    kept = (Path(ledger.store) if ledger.is_local else ledger.node.folder) / "runs"
    unfinished = made_trial().stages[2].checkpoint
    steps = {step.key: step for step in (STEP, unfinished)}
    with ledger.writing(STEP) as draft:
        draft.commit({})
    for key in (STEP.key, unfinished.key, "another sweep"):
        made(kept / key)
    ledger.files.write(f"runs/{STEP.key}/snapshot.json", b"of a worker group")
    with Leases(ledger.files, ClaimSettings(), "trains it again").held([STEP.key]):
        ledger.remove_finished_runs(steps)
        assert (kept / STEP.key).exists()
    ledger.remove_finished_runs(steps)
    assert {path.name for path in kept.iterdir()} == {unfinished.key, "another sweep"}
    assert not any(name.startswith(STEP.key) for name in ledger.sizes("runs"))
