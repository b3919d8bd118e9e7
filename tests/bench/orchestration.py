"""How close the walk comes to the best packing: many trials of simulated work on a simulated cluster of GPUs.

    python tests/bench/orchestration.py [--trials 200] [--stages 6] [--gpus 64] [--scale 0.02] [--ray]

Scheduler, ledger and keys are the real ones; a step sleeps for the time that it would take, with as many at once as there are
GPUs. Without --ray the drivers are coroutines of one process that do what a walk does, and show what flights and ledger lose;
with it, drivers are tasks of a real Ray cluster that walk (`run_trial`) and ask one actor, which shows what Ray adds for each
step. The clock runs once Ray has started.
CPU and memory are those of our processes (the largest, for memory), not of Ray's own.

The best packing is bounded from below by the sum of all work over the GPUs, and by the longest chain of one trial.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from made import made_trial

from lmmcl.config.cluster import Cluster
from lmmcl.ledger import Ledger
from lmmcl.runner.in_flight import ConcurrentScheduler
from lmmcl.runner.trial_driver import run_trial
from lmmcl.steps import Checkpoint, CheckpointStep, Finetune, ScoringStep, Step
from lmmcl.steps.trial import Trial

FINETUNE, EVALUATE = (20.0, 60.0), (3.0, 8.0)
"""Minutes of a step, from to: drawn from its key, so that they are the same in every run."""


def minutes(step: Step) -> float:
    kind = FINETUNE if isinstance(step, Finetune) else EVALUATE
    return random.Random(step.key).uniform(*kind)


def trials(number: int, stages: int) -> list[Trial]:
    skills = tuple(f"skill{stage}" for stage in range(stages))
    return [made_trial(skills=skills, held_out=("kept", "other"), seed=seed) for seed in range(number)]


class Simulated:
    """Steps that sleep, at most `gpus` at once, and are then recorded."""

    def __init__(self, ledger: Ledger, gpus: int, scale: float) -> None:
        self._ledger, self._scale, self._gpus = ledger, scale, gpus
        self._free: asyncio.Semaphore | None = None
        self.work = 0.0

    async def __call__(self, steps: Sequence[Step]) -> None:
        costly = [step for step in steps if isinstance(step, Finetune) or not isinstance(step, CheckpointStep)]
        await self._spend(sum(minutes(step) for step in costly), steps)

    async def _spend(self, spent: float, steps: Sequence[Step]) -> None:
        self._free = self._free or asyncio.Semaphore(self._gpus)
        async with self._free:
            await asyncio.sleep(spent * self._scale)
            self.work += spent
        for step in steps:
            await asyncio.to_thread(self._record, step)

    def _record(self, step: Step) -> None:
        with self._ledger.writing(step) as draft:
            draft.commit({"score": 50.0, "sample_scores": [0.5, 0.5], "seconds": 0.0})


class SimulatedActor:
    """What the steps actor is, over simulated work."""

    def __init__(self, ledger: Ledger, gpus: int, scale: float) -> None:
        self._simulated = Simulated(ledger, gpus, scale)
        self._scheduler = ConcurrentScheduler(ledger, Cluster(), self._simulated)

    async def records(self, steps: Sequence[ScoringStep]) -> list[Any]:
        return await self._scheduler.records(steps)

    async def prefetch(self, step: Checkpoint) -> None:
        self._scheduler.prefetch(step)

    async def used(self) -> tuple[float, Used]:
        return self._simulated.work, used_here()


@dataclass(frozen=True)
class Used:
    """CPU seconds of a process so far, and its largest memory in MiB."""

    cpu: float
    memory: int


def used_here() -> Used:
    return Used(time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


@dataclass(frozen=True)
class Walked:
    """Minutes of simulated work, seconds that the walk took, and what each of our processes used."""

    work: float
    seconds: float
    used: dict[str, Used]


def in_one_process(trials: Sequence[Trial], ledger: Ledger, gpus: int, scale: float, at_once: int) -> Walked:
    simulated = Simulated(ledger, gpus, scale)
    scheduler = ConcurrentScheduler(ledger, Cluster(), simulated)

    async def walk(trial: Trial, door: asyncio.Semaphore) -> None:
        async with door:
            for stage, following in zip_longest(trial.stages, trial.stages[1:]):
                if following:
                    scheduler.prefetch(following.checkpoint)
                await scheduler.records(stage.asked)

    async def all_of_them() -> None:
        door = asyncio.Semaphore(at_once)
        await asyncio.gather(*(walk(trial, door) for trial in trials))

    before, start = used_here().cpu, time.monotonic()
    asyncio.run(all_of_them())
    took, after = time.monotonic() - start, used_here()
    return Walked(simulated.work, took, {"walk": Used(after.cpu - before, after.memory)})


def on_ray(trials: Sequence[Trial], ledger: Ledger, gpus: int, scale: float, at_once: int, cpus: int) -> Walked:
    import ray

    from lmmcl.runner.ray_backend.steps_actor import RemoteSteps

    paths = ":".join(str(Path(__file__).parents[up]) for up in (1, 2))
    ray.init(
        address="local",
        num_cpus=cpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": paths}},
    )

    @ray.remote(num_cpus=0)
    class Driver:
        """Walks trials in threads, as Tune's drivers do in processes: 200 of those would not fit this machine."""

        def __init__(self, actor: Any) -> None:
            self._steps = RemoteSteps(actor)

        def walk(self, trial: Trial) -> int:
            run_trial(trial, self._steps, lambda report: None)
            return 1

        def used(self) -> Used:
            return used_here()

    def ask(what: str) -> dict[str, Used]:
        found = {f"driver {number}": ray.get(driver.used.remote()) for number, driver in enumerate(drivers)}
        return {"actor": ray.get(actor.used.remote())[1], **found, what: used_here()}

    try:
        actor = ray.remote(SimulatedActor).options(num_cpus=0, max_concurrency=10_000).remote(ledger, gpus, scale)
        drivers = [Driver.options(max_concurrency=at_once + 1).remote(actor) for _ in range(cpus)]
        before, start = ask("sweep"), time.monotonic()
        walking: list[Any] = []
        for number, trial in enumerate(trials):
            if len(walking) == at_once:
                done, walking = ray.wait(walking)
                ray.get(done)
            walking.append(drivers[number % cpus].walk.remote(trial))
        ray.get(walking)
        took, after = time.monotonic() - start, ask("sweep")
        used = {name: Used(each.cpu - before[name].cpu, each.memory) for name, each in after.items()}
        return Walked(ray.get(actor.used.remote())[0], took, used)
    finally:
        ray.shutdown()


def longest_chain(trial: Trial) -> float:
    """Minutes that one trial takes at least: its fine-tunes one after the other, then the questions to the last."""
    tuned = sum(minutes(step) for step in trial.steps().values() if isinstance(step, Finetune))
    return tuned + max(minutes(step) for step in trial.stages[-1].asked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--stages", type=int, default=6)
    parser.add_argument("--gpus", type=int, default=64)
    parser.add_argument("--scale", type=float, default=0.02, help="seconds that stand for a minute")
    parser.add_argument("--open", type=int, help="trials open at once; default twice the GPUs, as a run does")
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--cpus", type=int, default=2)
    given = parser.parse_args()
    load = round(os.getloadavg()[0], 1)
    walked = trials(given.trials, given.stages)
    steps = {key: step for trial in walked for key, step in trial.steps().items()}
    with tempfile.TemporaryDirectory(prefix="lmmcl-packing-") as folder:
        ledger = Ledger(folder)
        at_once = given.open or 2 * given.gpus
        if given.ray:
            found = on_ray(walked, ledger, given.gpus, given.scale, at_once, given.cpus)
        else:
            found = in_one_process(walked, ledger, given.gpus, given.scale, at_once)
        recorded = sum(ledger.find(step) is not None for step in steps.values())
    best = max(found.work / given.gpus, max(longest_chain(trial) for trial in walked))
    makespan, cpu = found.seconds / given.scale, sum(each.cpu for each in found.used.values())
    told = {
        "trials": given.trials,
        "open_at_once": at_once,
        "steps": len(steps),
        "recorded": recorded,
        "gpus": given.gpus,
        "load_before": load,
        "work_minutes": round(found.work),
        "best_packing_minutes": round(best, 1),
        "makespan_minutes": round(makespan, 1),
        "seconds": round(found.seconds, 1),
        "ratio": round(makespan / best, 3),
        "cpu_milliseconds_per_step": round(1000 * cpu / len(steps), 2),
        "peak_memory_mib": {name: each.memory for name, each in found.used.items()},
    }
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
