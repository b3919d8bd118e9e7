"""Two runs that share a store compute each step once: one computes, the other waits for its record."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from pathlib import Path

import pytest
from made import made_trial
from shared_runs import SETTINGS, two_runs, walk, wanted

from lmmcl.config.cluster import ClaimSettings, Cluster
from lmmcl.ledger import Ledger
from lmmcl.ledger.leases import Leases
from lmmcl.runner import execute
from lmmcl.runner.inline import InlineSteps
from lmmcl.steps import Step


def test_two_processes_on_a_folder_compute_each_step_once(tmp_path: Path) -> None:
    counts = two_runs(str(tmp_path / "store"), tmp_path / "diary")
    assert counts == dict.fromkeys(wanted(), 1)
    assert not any((tmp_path / "store" / "claims").iterdir())


def test_without_claims_the_same_two_compute_steps_twice(tmp_path: Path) -> None:
    counts = two_runs(str(tmp_path / "store"), tmp_path / "diary", ClaimSettings(enabled=False))
    assert set(counts) == wanted() and sum(counts.values()) > len(wanted())


def test_a_step_of_a_run_that_was_killed_is_computed_at_once(tmp_path: Path) -> None:
    store, diary = str(tmp_path / "store"), tmp_path / "diary"
    process = multiprocessing.get_context("spawn").Process(target=walk, args=(store, str(diary), SETTINGS))
    process.start()
    while not diary.exists():
        time.sleep(0.01)
    process.kill()
    process.join()
    assert any((tmp_path / "store" / "claims").iterdir()), "it had claimed what it computed"
    begun = time.monotonic()
    again = multiprocessing.get_context("spawn").Process(target=walk, args=(store, str(diary), SETTINGS))
    again.start()
    again.join(120)
    assert again.exitcode == 0
    assert time.monotonic() - begun < SETTINGS.expiry_s / 2, "nobody waited for the claim to expire"


def test_who_waits_computes_when_the_other_never_comes_to_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, short = Ledger(str(tmp_path)), ClaimSettings(expiry_s=0.3, poll_s=0.05)
    step = made_trial().stages[0].checkpoint
    monkeypatch.setattr("lmmcl.ledger.leases.host_id", lambda: "another machine")
    other = Leases(ledger.files, short, "another cluster")
    with other.held([step.key]) as held:
        held.keep()
    monkeypatch.undo()
    monkeypatch.setattr(execute, "_compute", lambda step, ledger, *_: commit(step, ledger))
    steps = InlineSteps(ledger, Cluster(claims=short), lambda *_: None)
    begun = time.monotonic()
    asyncio.run(steps._flights.ensure_checkpoint(step))
    assert time.monotonic() - begun >= 0.3
    assert ledger.has_usable(step)


def test_who_lost_a_race_goes_on_with_the_record_of_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, (first, second) = Ledger(str(tmp_path)), (stage.checkpoint for stage in made_trial().stages[:2])

    def stumble(step: Step, ledger: Ledger, *_: object) -> None:
        if step.key == first.key:
            commit(step, ledger)
        raise FileNotFoundError("runs/checkpoint-10: the other has ended, and deleted it")

    monkeypatch.setattr(execute, "_compute", stumble)
    assert execute.compute_checkpoint(first, ledger, Cluster(), lambda *_: None) is False
    assert ledger.has_usable(first)
    with pytest.raises(FileNotFoundError):
        execute.compute_checkpoint(second, ledger, Cluster(), lambda *_: None)
    assert not ledger.sizes("claims")


def commit(step: Step, ledger: Ledger) -> None:
    with ledger.writing(step) as draft:
        draft.commit({})
