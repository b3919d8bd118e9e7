"""Faults for a running sweep: which process dies when, and what came of it."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from made import write_sweep
from store_watch import StoreWatch

from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.inspection.audit import check_store
from lmmcl.ledger import Ledger
from lmmcl.steps import Finetune

sys.path.insert(0, str(Path(__file__).parents[1]))
from processes import Command

SEED = int(os.environ.get("LMMCL_FAULTS_SEED") or random.SystemRandom().randrange(1_000_000))
"""What all random moments of the suite are drawn from."""
UPDATES, EVERY = 60, 10
"""Updates of a stage, and between two checkpoints inside it."""
SWEEP = f"""
name: small
orders:
  main: [counting, clock, digits]
benchmarks: {{held_out: [colour]}}
training: {{max_steps: {UPDATES}, examples: 320, global_batch_size: 16, precision: fp32}}
evaluation: {{precision: fp32, limit: 12}}
grids:
  - {{model: [tiny-onevision], recipe: [sa_proj, gate_up], learning_rate: [1.0e-3]}}
"""
NODE = f"ray: {{cpus: 2}}\ntraining: {{save_every: {EVERY}, max_failures: 20}}\n"
TITLES = {
    "worker": "ray::_compute_checkpoint",
    "evaluation": "ray::_compute_scores",
    "driver": "ray::ImplicitFunc",
    "actor": "ray::StepsActor",
    "group worker": "ray::RayTrainWorker",
}
KILLED = "SIGKILL at a random moment"
SAME = "same scores; no finished step begun again; at most one interval of updates made again"
EXACT = "same scores; no finished step begun again; no update made again"
PATIENCE = 900.0


def chance(*of: object) -> random.Random:
    """Random numbers for one purpose, the same for the same LMMCL_FAULTS_SEED."""
    return random.Random(f"{SEED} {of}")


def scores(sweep: Sweep, ledger: Ledger) -> dict[str, list[float]]:
    """Every question's score by step."""
    found = {key: ledger.find(step) for key, step in sweep.steps.items() if step.kind == "evaluate"}
    return {key: record["sample_scores"] for key, record in found.items() if record}


@dataclass
class Table:
    """Faults and what came of them, for a person to read."""

    rows: list[tuple[str, str, int, str]] = field(default_factory=list)
    made_again: list[int] = field(default_factory=list)
    begun_again: int = 0

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
        lines += [f"| **all** | | **{self.faults}** | |", ""]
        cost = f"{sum(self.made_again)} updates were made again (mean {self.mean:.1f} of an interval of {EVERY})"
        lines += [f"Unfinished steps begun again: {self.begun_again}. Stages resumed: {len(self.made_again)}; {cost}."]
        return "\n".join([*lines, f"`LMMCL_FAULTS_SEED={SEED}`"])

    @property
    def mean(self) -> float:
        return sum(self.made_again) / max(1, len(self.made_again))


TABLE = Table()
STARTED: list[Command] = []
"""Commands of the test that runs; what is left of them afterwards is ended."""


class Victim:
    """A sweep that runs in a folder of its own, to be disturbed and watched."""

    def __init__(self, folder: Path, *, sweep: str = SWEEP, cluster: str = NODE, store: str | None = None) -> None:
        self.folder = folder
        self.ledger = Ledger(store or str(folder / "store"))
        self.store = Path(self.ledger.store)
        self.sweep = load_sweep(write_sweep(folder, sweep))
        (folder / "node.yaml").write_text(cluster)
        self.watch = StoreWatch(self.store).start() if self.ledger.is_local else None

    def start(self, *more: str, mlflow: str = "off") -> Command:
        words = ["run", "small.yaml", "--store", self.ledger.store, "--cluster", "node.yaml", "--mlflow", mlflow]
        STARTED.append(Command(*words, *more, cwd=self.folder))
        return STARTED[-1]

    def ends_well(
        self,
        command: Command,
        expected: dict[str, list[float]],
        *,
        interval: int = EVERY,
        recomputed: Collection[str] = (),
    ) -> str:
        """Hold a sweep to the undisturbed one; returns what to write in the table.

        `interval` bounds the updates that a stage makes again after one fault; `recomputed` are keys of steps whose files were spoilt.
        """
        assert command.wait(PATIENCE) == 0, command.output
        assert scores(self.sweep, self.ledger) == expected
        assert check_store(self.ledger).damages == []
        assert self.ledger.sizes("runs") == {}, "nothing is left to resume"
        if self.watch:
            self.watch.stop()
            assert set(self.watch.repeated()) <= set(recomputed), self.watch.events
            TABLE.begun_again += self.watch.begun_again()
        again = [updates for key, updates in self.made_again() if key not in recomputed]
        assert all(0 <= updates <= interval for updates in again), (again, self.diary())
        TABLE.made_again += again
        return SAME if any(again) else EXACT

    def diary(self) -> list[tuple[str, str, int]]:
        """What processes wrote down: step key, try, update (0: the step begins)."""
        file = Path(os.environ["LMMCL_TEST_DIARY"])
        lines = [line.split("\t") for line in file.read_text().splitlines()] if file.exists() else []
        return [(key, attempt, int(update)) for store, key, attempt, update in lines if store == self.ledger.store]

    def made_again(self) -> list[tuple[str, int]]:
        """For each try that resumed a stage: its key, and how many updates it made that had been made before."""
        reached: dict[str, int] = {}
        tries: set[str] = set()
        found = []
        for key, attempt, update in self.diary():
            if update:
                if key in reached and attempt not in tries:
                    found.append((key, reached[key] + 1 - update))
                tries.add(attempt)
                reached[key] = max(update, reached.get(key, 0))
        stages = {key: step.training.max_steps for key, step in self.sweep.steps.items() if isinstance(step, Finetune)}
        assert reached == stages, "every update of every stage was reported"
        return found

    def update_of(self, process: int) -> int:
        """The last update that a process made, 0 if it has begun something else since or not trained at all."""
        return next((update for _, attempt, update in self.diary()[::-1] if attempt.startswith(f"{process}-")), 0)

    def is_midway(self, process: int, least: int = 1) -> bool:
        """Whether a process trains just now, has made a number of updates of a stage, and will continue for a while."""
        return least <= self.update_of(process) <= UPDATES - 15

    def training_saved(self) -> bool:
        """Whether a stage in training has written a checkpoint inside it."""
        return bool(list((self.store / "runs").glob("*/checkpoint-*/trainer_state.json")))

    def is_done(self) -> bool:
        """Whether there is nothing left to disturb."""
        return self.ledger.is_local and all(self.ledger.has(step) for step in self.sweep.steps.values())

    def strike(
        self,
        command: Command,
        part: str,
        deed: Callable[[int], object] = lambda process: os.kill(process, signal.SIGKILL),
        *,
        when: Callable[[int], bool] = lambda process: True,
        delay: float = 0.0,
    ) -> bool:
        """Do `deed` to a process of this part once it was there, and `when` held of it, for `delay` seconds.

        False: the sweep had all its steps before; that is not a fault survived.
        """
        end = time.monotonic() + PATIENCE
        since: dict[int, float] = {}
        while time.monotonic() < end:
            if command.process.poll() is not None or self.is_done():
                return False
            now = time.monotonic()
            ready = [process for process in processes(command, TITLES[part]) if when(process)]
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


def processes(command: Command, title: str) -> Iterator[int]:
    """Ids of the processes of `command` whose title begins like this."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            ours = command.mark.encode() in (folder / "environ").read_bytes()
            if ours and (folder / "cmdline").read_bytes().startswith(title.encode()):
                yield int(folder.name)
        except (OSError, ProcessLookupError):
            continue


def end_started() -> None:
    """End what is left of the commands of a test that failed."""
    for command in STARTED:
        for process in processes(command, ""):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
    STARTED.clear()


def shuffled(parts: dict[str, int], draw: random.Random) -> list[str]:
    """Each part as often as given, in a random order."""
    order = [part for part, times in parts.items() for _ in range(times)]
    draw.shuffle(order)
    return order
