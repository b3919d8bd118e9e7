"""Steps that several runs want, on one machine or on clusters that share a store: one computes each, the others wait for it.

A launcher is asked only for what nobody else computes, so whoever waits holds no GPU; the task of a step claims it when that
task begins (`turn`), and leaves alone what another was faster to claim. With `workers: 0` that is when the work begins; the
task of a worker group claims when it begins to wait for the group's place, so a stage that queues for GPUs is held by the run
that queued first. A run that vanishes is found out (see `lmmcl.ledger.leases`), and its steps are computed by one that waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from lmmcl.config.cluster import Cluster
from lmmcl.ledger import Ledger
from lmmcl.ledger.leases import Held, Leases
from lmmcl.ledger.provenance import this_run
from lmmcl.runner.in_flight import Launcher
from lmmcl.steps import Checkpoint, ScoringStep

TRIES = 20
"""How often a step may be computed by others in vain, or be left by a computation that found it claimed."""

AnyStep = TypeVar("AnyStep", bound=Checkpoint | ScoringStep)

log = logging.getLogger("lmmcl")


@dataclass
class Turn:
    """The steps to compute here and now, and the claims to them."""

    steps: list[Any]
    held: Held


@contextmanager
def turn(steps: Sequence[AnyStep], ledger: Ledger, cluster: Cluster) -> Iterator[Turn]:
    """Claim `steps` for the time of the `with`: those that nobody else has claimed, or recorded meanwhile, are to be computed."""
    with _claims(ledger, cluster).held([step.key for step in steps]) as held:
        yield Turn(unrecorded([step for step in steps if step.key in held.keys], ledger), held)


def unrecorded(steps: Sequence[AnyStep], ledger: Ledger) -> list[AnyStep]:
    """Those that are still to be computed; looked for side by side where each look takes a round trip."""
    if ledger.is_local or len(steps) < 2:
        return [step for step in steps if not ledger.has_usable(step)]
    with ThreadPoolExecutor(8) as pool:
        return [step for step, there in zip(steps, pool.map(ledger.has_usable, steps), strict=True) if not there]


def _claims(ledger: Ledger, cluster: Cluster) -> Leases:
    return Leases(ledger.files, cluster.claims, this_run())


class SharedLauncher:
    """Lets other runs finish what they have begun, and asks `launcher` for the rest."""

    def __init__(self, launcher: Launcher, ledger: Ledger, cluster: Cluster) -> None:
        self._launcher, self._ledger, self._cluster = launcher, ledger, cluster
        self._told: set[str] = set()
        self._kept: Leases | None = None

    async def checkpoint(self, step: Checkpoint) -> None:
        """See `Launcher.checkpoint`."""
        await self._recorded([step], lambda some: self._launcher.checkpoint(some[0]))

    async def scores(self, steps: Sequence[ScoringStep]) -> None:
        """See `Launcher.scores`."""
        await self._recorded(list(steps), self._launcher.scores)

    async def _recorded(self, steps: list[AnyStep], compute: Callable[[list[AnyStep]], Awaitable[None]]) -> None:
        """Compute what nobody else does until all of `steps` are recorded; raises RuntimeError where that leads nowhere."""
        computed = 0
        while steps:
            free = await asyncio.to_thread(self._free, steps)
            if free:
                computed += 1
                await compute(free)
            steps = await asyncio.to_thread(unrecorded, steps, self._ledger)
            if steps and computed >= TRIES:
                raise RuntimeError(f"{steps[0].path} was computed {computed} times and is not in {self._ledger.store}")
            if steps:
                await asyncio.sleep(self._cluster.claims.poll_s)

    def _free(self, steps: Sequence[AnyStep]) -> list[AnyStep]:
        if self._kept is None:  # remembers since when others' claims have not changed
            self._kept = _claims(self._ledger, self._cluster)
        free = []
        for step in steps:
            holder = self._kept.owner(step.key)
            if holder is None:
                free.append(step)
            elif step.key not in self._told:
                self._told.add(step.key)
                log.warning("%s is being computed by %s; waiting for it", step.label, holder)
        return free
