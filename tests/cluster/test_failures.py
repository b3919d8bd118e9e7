"""A trial whose step dies again and again: told with its reason, while the others finish."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest
from chaos import Victim

from lmmcl.ledger import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(900)]


def test_a_trial_that_fails_for_good_is_told_with_its_reason_while_the_others_finish(tmp_path: Path) -> None:
    victim = Victim(tmp_path, cluster="ray: {cpus: 2}\ntraining: {max_failures: 1}\n")
    doomed, spared = victim.sweep.trials
    command = victim.start()
    killed = 0
    end = time.monotonic() + 400
    while command.process.poll() is None and time.monotonic() < end:
        for folder in (victim.store / ".partial").glob(f"{doomed.stages[2].checkpoint.key}-*"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(folder.name.rsplit("-", 2)[1]), signal.SIGKILL)
                killed += 1
        time.sleep(0.05)
    assert command.wait(1) == 1, command.output
    assert killed >= 2
    assert f"failed: {doomed.name}" in command.output and "was tried 2 times" in command.output, command.output
    [told] = (victim.store / "failures").glob("*.txt")
    assert told.stem == doomed.key
    ledger = Ledger(str(victim.store))
    assert all(ledger.find(step) for step in spared.steps().values())
