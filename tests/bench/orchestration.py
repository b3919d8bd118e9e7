"""How close the walk comes to the best packing: many trials of simulated work on a simulated cluster of GPUs.

    python tests/bench/orchestration.py [--trials 200] [--stages 6] [--gpus 64] [--scale 0.02] [--ray]

Flights, walk, ledger and keys are the real ones; a step sleeps for the time that it would take, with as many at once as there
are GPUs. Without --ray the drivers are coroutines of one process and show what the walk itself loses; with it, drivers are
tasks of a real Ray cluster that ask one actor, which shows what Ray adds for each step.

The best packing is bounded from below by the sum of all work over the GPUs, and by the longest chain of one trial.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from made import made_trial

from lmmcl.ledger import Ledger
from lmmcl.runner.flights import Flights
from lmmcl.runner.trial import run_trial
from lmmcl.spec.steps import Asked, Checkpoint, Finetune, Step
from lmmcl.spec.trial import Trial

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

    async def checkpoint(self, step: Checkpoint) -> None:
        await self._spend(minutes(step) if isinstance(step, Finetune) else 0.0, [step])

    async def scores(self, steps: Sequence[Asked]) -> None:
        await self._spend(sum(minutes(step) for step in steps), steps)

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
        self._flights = Flights(ledger, self._simulated)

    async def ensure_scores(self, steps: Sequence[Asked]) -> list[Any]:
        return await self._flights.ensure_scores(steps)

    async def begin(self, step: Checkpoint) -> None:
        self._flights.begin(step)

    async def work(self) -> float:
        return self._simulated.work


def in_one_process(walked: Sequence[Trial], ledger: Ledger, gpus: int, scale: float, at_once: int) -> float:
    simulated = Simulated(ledger, gpus, scale)
    flights = Flights(ledger, simulated)

    async def walk(trial: Trial, door: asyncio.Semaphore) -> None:
        async with door:
            for stage, following in zip_longest(trial.stages, trial.stages[1:]):
                if following:
                    flights.begin(following.checkpoint)
                await flights.ensure_scores(stage.asked)

    async def all_of_them() -> None:
        door = asyncio.Semaphore(at_once)
        await asyncio.gather(*(walk(trial, door) for trial in walked))

    asyncio.run(all_of_them())
    return simulated.work


def on_ray(walked: Sequence[Trial], ledger: Ledger, gpus: int, scale: float, cpus: int) -> float:
    import ray

    from lmmcl.runner.remote import RemoteSteps

    paths = ":".join(str(Path(__file__).parents[up]) for up in (1, 2))
    ray.init(
        address="local",
        num_cpus=cpus,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": paths}},
    )
    actor = ray.remote(SimulatedActor).options(num_cpus=0, max_concurrency=1000).remote(ledger, gpus, scale)

    @ray.remote(num_cpus=0)
    class Driver:
        """Walks trials in threads, as Tune's drivers do in processes: 200 of those would not fit this machine."""

        def walk(self, trial: Trial) -> int:
            run_trial(trial, RemoteSteps(actor), lambda report: None)
            return 1

    drivers = [Driver.options(max_concurrency=len(walked)).remote() for _ in range(cpus)]
    try:
        ray.get([drivers[number % cpus].walk.remote(trial) for number, trial in enumerate(walked)])
        return ray.get(actor.work.remote())
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
    walked = trials(given.trials, given.stages)
    steps = {key: step for trial in walked for key, step in trial.steps().items()}
    with tempfile.TemporaryDirectory(prefix="lmmcl-packing-") as folder:
        ledger = Ledger(folder)
        start, cpu = time.monotonic(), time.process_time()
        if given.ray:
            work = on_ray(walked, ledger, given.gpus, given.scale, given.cpus)
        else:
            work = in_one_process(walked, ledger, given.gpus, given.scale, given.open or 2 * given.gpus)
        took, used = time.monotonic() - start, time.process_time() - cpu
        recorded = sum(ledger.find(step) is not None for step in steps.values())
    best = max(work / given.gpus, max(longest_chain(trial) for trial in walked))
    print(
        json.dumps(
            {
                "trials": given.trials,
                "steps": len(steps),
                "recorded": recorded,
                "gpus": given.gpus,
                "work_minutes": round(work),
                "best_packing_minutes": round(best, 1),
                "makespan_minutes": round(took / given.scale, 1),
                "ratio": round(took / given.scale / best, 3),
                "cpu_milliseconds_per_step": round(1000 * used / len(steps), 2),
                "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
