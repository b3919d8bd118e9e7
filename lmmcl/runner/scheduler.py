"""Brings steps into being, each once: what is recorded is found, what another run computes is waited for, the rest is computed.

`StepScheduler` works in the caller, one step after another, and needs no event loop: its coroutines never wait for one, so it
runs in a debugger or a notebook, and a traceback shows how a step was come to. `lmmcl.runner.in_flight` adds the event loop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from inspect import isawaitable
from typing import Any, TypeVar

from lmmcl.config.cluster import Cluster
from lmmcl.errors import explain
from lmmcl.ledger import Ledger, Record
from lmmcl.ledger.record import DamagedError
from lmmcl.ledger.store import StoreError
from lmmcl.runner.step_leases import OtherRuns, missing_steps
from lmmcl.steps import Checkpoint, CheckpointStep, ScoringStep

REPAIRS = 3
"""How many damaged files one step may meet on its way; more are a disk that is to be looked at."""
ATTEMPTS = 20
"""How often a step may be computed without being recorded, as when other runs lease it and give it up in turn."""

Compute = Callable[[Sequence[Any]], Awaitable[None] | bool | None]
"""Computes steps whose parents are recorded: one checkpoint, or several scores of one. Done when it returns, or was awaited."""
T = TypeVar("T")

log = logging.getLogger(__name__)


class StepScheduler:
    """Has each missing step computed, its parents first, by `compute`."""

    def __init__(self, ledger: Ledger, cluster: Cluster, compute: Compute) -> None:
        self._ledger, self._cluster, self._compute = ledger, cluster, compute
        self._others = OtherRuns(ledger, cluster)

    def ensure_all(self, steps: Sequence[ScoringStep]) -> list[Record]:
        """The records of the scoring steps of one checkpoint, in the given order, computed where they are missing."""
        ensuring = self.ensure(steps)
        try:
            ensuring.send(None)
        except StopIteration:
            return [self._recorded(step) for step in steps]
        raise AssertionError("nothing waits for an event loop in one process")

    def prefetch(self, step: Checkpoint) -> None:
        """Have a checkpoint computed where there is room, and do not wait for it: in one process there is no room."""

    async def ensure(self, steps: Sequence[Checkpoint | ScoringStep]) -> None:
        """Return when all of `steps` (one checkpoint, or the scoring steps of one) are recorded, and their parents with them.

        A file that turns out damaged has its record quarantined by then: its step is missing again, and computed again.
        """
        attempts = repairs = 0
        missing = await self._call(missing_steps, steps, self._ledger)
        needed = _parents(missing) if missing else _bases(steps)
        while True:
            self._start(needed)
            for parent in needed:
                await self.ensure([parent])
            if not missing:
                return
            free = await self._call(self._others.free, missing)
            attempts += bool(free)
            if attempts > ATTEMPTS:
                raise RuntimeError(
                    f"{missing[0].path} was computed {ATTEMPTS} times and is not in {self._ledger.store}"
                )
            pause = self._cluster.claims.poll_s
            try:
                if free and isawaitable(computing := self._compute(free)):
                    await computing
            except DamagedError as error:
                repairs += 1
                if repairs > REPAIRS:
                    raise
                log.warning("computed again: %s", error)
                pause = 0
            except Exception as error:
                # A run that was thought gone, and ended first, has deleted what both kept for being resumed.
                if await self._call(self._any_missing, free):
                    raise
                log.warning("%s: another run finished it first (this one ended with %s)", free[0].label, explain(error))
            missing = await self._call(missing_steps, missing, self._ledger)
            needed = _parents(missing)
            if missing:
                await self._pause(pause)

    def _any_missing(self, steps: Sequence[Checkpoint | ScoringStep]) -> bool:
        """Whether any is not recorded; also where the store cannot say: the error that is at hand tells more."""
        try:
            return bool(missing_steps(steps, self._ledger))
        except StoreError:
            return True

    def _recorded(self, step: ScoringStep) -> Record:
        record = self._ledger.find(step)
        if record is None:
            raise RuntimeError(f"{step.path} was computed but its record is not in {self._ledger.store}")
        return record

    def _start(self, steps: Sequence[Checkpoint]) -> None:
        """Begin to ensure several checkpoints side by side; here, they come one after another as they are waited for."""

    async def _call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call what may take a while: a look into the store."""
        return function(*arguments)

    async def _pause(self, seconds: float) -> None:
        time.sleep(seconds)


def _parents(steps: Sequence[Checkpoint | ScoringStep]) -> list[Checkpoint]:
    """What must be recorded before any of `steps` can be computed."""
    return list({parent.key: parent for step in steps for parent in step.parents}.values())


def _bases(steps: Sequence[Checkpoint | ScoringStep]) -> list[Checkpoint]:
    """The checkpoints that the deltas of recorded ones lie over: without them these cannot be loaded."""
    return [base for step in steps if isinstance(step, CheckpointStep) for base in step.bases]
