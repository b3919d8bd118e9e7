"""Ensure every step once: who asks for a step that somebody is computing waits for that one.

`Flights` is plain asyncio and knows nothing of Ray: `--inline` drives it in one process, and one small Ray actor holds it
for a whole sweep. A failed step is forgotten, so it can be asked for again. A checkpoint may be wished for before anybody
waits for it (`begin`): the next stage trains while the one before is evaluated.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from lmmcl.ledger import Ledger, Record
from lmmcl.ledger.record import DamagedError
from lmmcl.steps import Checkpoint, ScoringStep

REPAIRS = 3
"""How many damaged files one step may meet on its way; more are a disk that is to be looked at."""

log = logging.getLogger(__name__)


class Launcher(Protocol):
    """Computes steps whose parents are recorded, and returns when their records are written."""

    def checkpoint(self, step: Checkpoint) -> Awaitable[None]:
        """Compute one checkpoint."""

    def scores(self, steps: Sequence[ScoringStep]) -> Awaitable[None]:
        """Compute several benchmarks and probes of one checkpoint."""


class Flights:
    """What is being computed, by key. All methods run on one event loop; a key is in flight at most once."""

    def __init__(self, ledger: Ledger, launcher: Launcher) -> None:
        self._ledger = ledger
        self._launcher = launcher
        self._in_flight: dict[str, asyncio.Task[None]] = {}
        self._wished: set[str] = set()
        self._refused: dict[str, BaseException] = {}

    @property
    def keys(self) -> list[str]:
        """What is being computed or waited for now."""
        return list(self._in_flight)

    async def ensure_scores(self, steps: Sequence[ScoringStep]) -> list[Record]:
        """The records of what is asked of one checkpoint, in the given order; those that nobody has asked for fly together."""
        assert len({step.checkpoint.key for step in steps}) == 1, "one checkpoint at a time"
        new = [step for step in steps if step.key not in self._in_flight]
        if new:
            self._depart([step.key for step in new], self._fly_scores(new))
        await self._arrival([step.key for step in steps])
        return [await self._recorded(step) for step in steps]

    async def ensure_checkpoint(self, step: Checkpoint) -> None:
        """Bring a checkpoint into being, its parents first."""
        self._wished.discard(step.key)
        if (error := self._refused.pop(step.key, None)) is not None:
            raise error
        if step.key not in self._in_flight:
            self._depart([step.key], self._fly_checkpoint(step))
        await self._arrival([step.key])

    def begin(self, step: Checkpoint) -> None:
        """Have a checkpoint computed and do not wait for it; needs a running loop.

        An error is kept for whoever asks next: a step that fails ahead of its time is not computed twice to be told.
        """
        self._refused.pop(step.key, None)
        if step.key in self._in_flight:
            return
        self._wished.add(step.key)
        self._depart([step.key], self._fly_checkpoint(step))

    def _depart(self, keys: list[str], flight: Awaitable[None]) -> None:
        task = asyncio.ensure_future(flight)
        for key in keys:
            self._in_flight[key] = task

        def landed(flight: asyncio.Task[None]) -> None:
            for key in keys:
                self._in_flight.pop(key, None)
                if key in self._wished:  # and nobody waits yet
                    self._wished.discard(key)
                    if not flight.cancelled() and (error := flight.exception()) is not None:
                        self._refused[key] = error

        task.add_done_callback(landed)

    async def _arrival(self, keys: list[str]) -> None:
        """Wait for flights; a waiter that is cancelled takes no flight down, for others may wait for it too."""
        for task in {self._in_flight[key] for key in keys if key in self._in_flight}:
            await asyncio.shield(task)

    async def _fly_checkpoint(self, step: Checkpoint) -> None:
        if await asyncio.to_thread(self._ledger.has_usable, step):
            for parent in step.parents[:1]:  # the one that its delta lies over
                await self.ensure_checkpoint(parent)
            return
        await self._launch(step.parents, lambda: self._launcher.checkpoint(step))

    async def _fly_scores(self, steps: Sequence[ScoringStep]) -> None:
        missing = [step for step in steps if await self._find(step) is None]
        if missing:
            parents = {parent.key: parent for step in missing for parent in step.parents}
            await self._launch(list(parents.values()), lambda: self._launcher.scores(missing))

    async def _launch(self, parents: Sequence[Checkpoint], start: Callable[[], Awaitable[None]]) -> None:
        """Bring `parents` into being, then compute; a file that turns out damaged (its record is aside by then) is made again."""
        for repairs_left in range(REPAIRS, -1, -1):
            await asyncio.gather(*(self.ensure_checkpoint(parent) for parent in parents))
            try:
                await start()
            except DamagedError as error:
                if not repairs_left:
                    raise
                log.warning("computed again: %s", error)
            else:
                return

    async def _find(self, step: Checkpoint | ScoringStep) -> Record | None:
        return await asyncio.to_thread(self._ledger.find, step)

    async def _recorded(self, step: ScoringStep) -> Record:
        record = await self._find(step)
        if record is None:
            raise RuntimeError(f"{step.path} was computed but its record is not in {self._ledger.store}")
        return record
