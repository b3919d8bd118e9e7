"""Faults for a running sweep: which process dies when, and what came of it."""

from __future__ import annotations

import os
import random
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from made import write_sweep
from store_watch import StoreWatch

from lmmcl.ledger import Ledger
from lmmcl.runner.audit import check_store
from lmmcl.spec.sweep import Sweep, load_sweep

sys.path.insert(0, str(Path(__file__).parents[1] / "runner"))
from processes import Command  # of tests/runner

SWEEP = """
name: small
orders:
  main: [counting, clock, digits]
benchmarks: {held_out: [colour]}
training: {max_steps: 60, examples: 320, global_batch_size: 16, precision: fp32}
evaluation: {precision: fp32, limit: 12}
grids:
  - {model: [tiny-onevision], recipe: [sa_proj, gate_up], learning_rate: [1.0e-3]}
"""
EVERY = 10
"""Updates between checkpoints inside a stage."""
NODE = f"ray: {{cpus: 2}}\ntraining: {{save_every: {EVERY}, max_failures: 20}}\n"
TITLES = {
    "worker": "ray::_compute_checkpoint",
    "evaluation": "ray::_compute_scores",
    "driver": "ray::ImplicitFunc",
    "actor": "ray::StepsActor",
    "group worker": "ray::RayTrainWorker",
}
PATIENCE = 400.0


def scores(sweep: Sweep, ledger: Ledger) -> dict[str, list[float]]:
    """Every question's score by step."""
    found = {key: ledger.find(step) for key, step in sweep.steps.items() if step.kind == "evaluate"}
    return {key: record["sample_scores"] for key, record in found.items() if record}


@dataclass
class Table:
    """Faults and what came of them, for a person to read."""

    rows: list[tuple[str, str, int, str]] = field(default_factory=list)

    def add(self, fault: str, how: str, times: int, outcome: str) -> None:
        self.rows.append((fault, how, times, outcome))

    @property
    def faults(self) -> int:
        return sum(row[2] for row in self.rows)

    def text(self) -> str:
        merged: dict[tuple[str, str, str], int] = Counter()
        for fault, how, times, outcome in self.rows:
            merged[fault, how, outcome] += times
        lines = ["| fault | how | times | outcome |", "|---|---|---|---|"]
        lines += [f"| {fault} | {how} | {times} | {outcome} |" for (fault, how, outcome), times in merged.items()]
        return "\n".join([*lines, f"| **all** | | **{self.faults}** | |"])


class Victim:
    """A sweep that runs in a folder of its own, to be disturbed and watched."""

    def __init__(self, folder: Path, *, sweep: str = SWEEP, cluster: str = NODE) -> None:
        self.folder, self.store = folder, folder / "store"
        self.sweep = load_sweep(write_sweep(folder, sweep))
        (folder / "node.yaml").write_text(cluster)
        self.watch = StoreWatch(self.store).start()

    def start(self, *more: str, mlflow: str = "off") -> Command:
        words = ["run", "small.yaml", "--store", "store", "--cluster", "node.yaml", "--mlflow", mlflow]
        return Command(*words, *more, cwd=self.folder)

    def ends_well(self, command: Command, expected: dict[str, list[float]], *, repeats: int = 0) -> str:
        """Hold a sweep to the undisturbed one; returns what to write in the table."""
        assert command.wait(PATIENCE) == 0, command.output
        self.watch.stop()
        ledger = Ledger(str(self.store))
        assert scores(self.sweep, ledger) == expected
        assert check_store(ledger).damages == []
        assert len(self.watch.repeated()) <= repeats, self.watch.repeated()
        assert not list((self.store / "runs").glob("*")), "nothing is left to resume"
        return "same scores; no finished step, and no saved update, done again"

    def training_saved(self) -> bool:
        """Whether a stage in training has written a checkpoint inside it."""
        return bool(list((self.store / "runs").glob("*/checkpoint-*/trainer_state.json")))


def processes(command: Command, title: str) -> Iterator[int]:
    """Ids of the processes of `command` whose title begins like this."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            ours = command.mark.encode() in (folder / "environ").read_bytes()
            if ours and (folder / "cmdline").read_bytes().startswith(title.encode()):
                yield int(folder.name)
        except (OSError, ProcessLookupError):
            continue


def strike(
    command: Command,
    part: str,
    deed: Callable[[int], None] = lambda process: os.kill(process, signal.SIGKILL),
    *,
    when: Callable[[], bool] = lambda: True,
    delay: float = 0.0,
) -> bool:
    """Do `deed` to a process of this part once it was there, and `when` held, for `delay` seconds. False: the sweep ended before."""
    end = time.monotonic() + PATIENCE
    since: dict[int, float] = {}
    while time.monotonic() < end:
        if command.process.poll() is not None:
            return False
        now = time.monotonic()
        ready = list(processes(command, TITLES[part])) if when() else []
        since = {process: since.get(process, now) for process in ready}
        for process in ready:
            if now - since[process] >= delay:
                try:
                    deed(process)
                except ProcessLookupError:
                    break
                return True
        time.sleep(0.05)
    raise AssertionError(f"no {part} came:\n{command.output}")


def no_memory(process: int) -> None:
    """Let a process take no more memory for a while: the next allocation fails."""
    size = int(Path(f"/proc/{process}/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.prlimit(process, resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))
    time.sleep(3)
    try:
        resource.prlimit(process, resource.RLIMIT_AS, before)
    except ProcessLookupError:
        return  # it did not live through it


def shuffled(parts: dict[str, int], seed: int) -> list[str]:
    """Each part as often as given, in a random order."""
    order = [part for part, times in parts.items() for _ in range(times)]
    random.Random(seed).shuffle(order)
    return order
