"""Two processes that walk the same trial on one store, with computations that sleep instead of training."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from made import made_trial

from lmmcl.config.cluster import ClaimSettings, Cluster
from lmmcl.ledger import Ledger
from lmmcl.runner.scheduler import StepScheduler
from lmmcl.runner.step_leases import leased
from lmmcl.steps import Step

SETTINGS = ClaimSettings(poll_s=0.05)


def walk(store: str, diary: str, claims: ClaimSettings, ready: Any = None) -> None:
    """All stages of a trial in this process, with computations that only sleep and write down that they ran."""

    def pretend(steps: Sequence[Step], ledger: Ledger) -> None:
        for step in steps:
            with Path(diary).open("a") as file:
                file.write(f"{step.key} {os.getpid()}\n")
            time.sleep(0.1)
            with ledger.writing(step) as draft:
                (draft.folder / "delta.safetensors").write_text(step.key)
                draft.commit({"by": os.getpid()})

    ledger, cluster = Ledger(store), Cluster(claims=claims)

    def compute(steps: Sequence[Step]) -> None:
        with leased(steps, ledger, cluster) as mine:
            pretend(mine.steps, ledger)

    scheduler = StepScheduler(ledger, cluster, compute)
    if ready is not None:
        ready.wait(60)
    for stage in made_trial().stages:
        scheduler.ensure_all(stage.asked)


def two_runs(store: str, diary: Path, claims: ClaimSettings = SETTINGS) -> Counter[str]:
    """How often each step was computed by two processes that start at once."""
    new = multiprocessing.get_context("spawn")
    ready = new.Barrier(2)
    processes = [new.Process(target=walk, args=(store, str(diary), claims, ready)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    return Counter(line.split()[0] for line in diary.read_text().splitlines())


def wanted() -> set[str]:
    return set(made_trial().steps())
