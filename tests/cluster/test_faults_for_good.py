"""A trial whose step dies again and again: told with its reason and the end of its log, while the others finish."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest
from chaos import Table, Victim

from lmmcl.ledger import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(900)]


def test_a_trial_that_fails_for_good_is_told_with_its_reason_while_the_others_finish(
    tmp_path: Path, undisturbed: dict[str, list[float]], table: Table
) -> None:
    victim = Victim(tmp_path, cluster="ray: {cpus: 2}\ntraining: {max_failures: 1}\n")
    doomed, spared = victim.sweep.trials
    step = doomed.stages[2].checkpoint
    command = victim.start()
    killed: set[str] = set()
    end = time.monotonic() + 400
    while command.process.poll() is None and time.monotonic() < end:
        for folder in (victim.store / ".partial").glob(f"{step.key}-*"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(folder.name.rsplit("-", 2)[1]), signal.SIGKILL)
                killed.add(folder.name)
        time.sleep(0.05)
    assert command.wait(1) == 1, command.output
    assert len(killed) == 2, "one try, and one more"
    assert f"failed: {doomed.name}" in command.output and "was tried 2 times" in command.output, command.output
    [told] = (victim.store / "failures").glob("*.txt")
    assert told.stem == doomed.key
    assert f"the end of its log:\nbegins {step.key}" in told.read_text(), told.read_text()
    ledger = Ledger(str(victim.store))
    assert all(ledger.find(step) for step in spared.steps().values())
    outcome = victim.ends_well(victim.start(), undisturbed, interval=60)  # nothing was saved inside stages
    table.add(
        "process of one stage, each time",
        "SIGKILL, until no try is left",
        len(killed),
        f"told with its reason and the end of its log, exit code 1, the other trial finished; the same command again: {outcome}",
    )
