"""Two runs that share a store compute each step once: one computes, the other waits for its record."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from made import made_trial
from shared_runs import SETTINGS, two_runs, walk, wanted

from lmmcl.config.cluster import ClaimSettings, Cluster
from lmmcl.ledger import Ledger
from lmmcl.ledger.leases import Leases
from lmmcl.runner.scheduler import ATTEMPTS, StepScheduler
from lmmcl.runner.step_leases import leased
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
    scheduler = StepScheduler(ledger, Cluster(claims=short), lambda steps: commit(steps[0], ledger))
    begun = time.monotonic()
    asyncio.run(scheduler.ensure([step]))
    assert time.monotonic() - begun >= 0.3
    assert ledger.has_usable(step)


def test_a_step_of_a_machine_that_was_lost_is_computed_once_its_claim_expires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run that waits watches the claim; the process that computes has not, and its own look at it finds nothing old."""
    ledger, short = Ledger(str(tmp_path)), ClaimSettings(expiry_s=0.5, poll_s=0.001)
    step = made_trial().stages[0].checkpoint
    with monkeypatch.context() as far:
        far.setattr("lmmcl.ledger.leases.host_id", lambda: "another machine")
        far.setattr(time, "time", lambda now=time.time: now() + 60)  # its clock is ahead of ours
        with Leases(ledger.files, short, "another cluster").held([step.key]) as held:
            held.keep()

    def compute(steps: Sequence[Step]) -> None:
        with leased(steps, ledger, Cluster(claims=short)) as mine:
            for step in mine.steps:
                commit(step, ledger)

    asyncio.run(StepScheduler(ledger, Cluster(claims=short), compute).ensure([step]))
    assert ledger.has_usable(step)


def test_who_lost_a_race_goes_on_with_the_record_of_the_other(tmp_path: Path) -> None:
    ledger, (first, second) = Ledger(str(tmp_path)), (stage.checkpoint for stage in made_trial().stages[:2])

    def stumble(steps: Sequence[Step]) -> None:
        with leased(steps, ledger, Cluster()) as mine:
            if mine.steps[0].key == first.key:
                commit(first, ledger)
            raise FileNotFoundError("runs/checkpoint-10: the other has ended, and deleted it")

    scheduler = StepScheduler(ledger, Cluster(), stumble)
    asyncio.run(scheduler.ensure([first]))
    assert ledger.has_usable(first)
    with pytest.raises(FileNotFoundError):
        asyncio.run(scheduler.ensure([second]))
    assert not ledger.sizes("claims")


def test_a_step_that_is_computed_and_never_recorded_is_given_up(tmp_path: Path) -> None:
    ledger, step, computed = Ledger(str(tmp_path)), made_trial().stages[0].checkpoint, []
    scheduler = StepScheduler(ledger, Cluster(claims=ClaimSettings(poll_s=0.001)), lambda steps: computed.append(steps))
    with pytest.raises(RuntimeError, match=f"was computed {ATTEMPTS} times and is not in"):
        asyncio.run(scheduler.ensure([step]))
    assert len(computed) == ATTEMPTS


def test_in_one_process_a_computation_is_in_the_traceback_of_who_asked(tmp_path: Path) -> None:
    def broken(steps: Sequence[Step]) -> None:
        raise RuntimeError("broke")

    scheduler = StepScheduler(Ledger(str(tmp_path)), Cluster(), broken)
    with pytest.raises(RuntimeError, match="broke") as raised:
        scheduler.ensure_all(made_trial().stages[1].asked)
    names = [entry.name for entry in raised.traceback]
    # stage 1 · its scores · its checkpoint · the one before
    assert names[1:] == ["ensure_all", "ensure", "ensure", "ensure", "broken"]


def test_in_one_process_steps_are_computed_also_where_an_event_loop_runs_as_in_a_notebook(tmp_path: Path) -> None:
    ledger, asked = Ledger(str(tmp_path)), made_trial().stages[1].asked
    scheduler = StepScheduler(ledger, Cluster(), lambda steps: [commit(step, ledger) for step in steps] and None)

    async def cell() -> int:
        return len(scheduler.ensure_all(asked))

    assert asyncio.run(cell()) == len(asked)


def commit(step: Step, ledger: Ledger) -> None:
    with ledger.writing(step) as draft:
        draft.commit({})
