"""Steps in flight on an event loop: a request for a step that is being computed waits for that computation.

Plain asyncio, without Ray: one small Ray actor holds a `ConcurrentScheduler` for a whole sweep. A failed step is forgotten, so it
can be asked for again. A checkpoint may be prefetched before anybody waits for it: the next stage trains while the one before
is evaluated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from lmmcl.config.cluster import Cluster
from lmmcl.ledger import Ledger, Record
from lmmcl.runner.scheduler import Compute, StepScheduler
from lmmcl.steps import Checkpoint, ScoringStep


class ConcurrentScheduler(StepScheduler):
    """A scheduler for many askers. All methods run on one event loop; a key is in flight at most once."""

    def __init__(self, ledger: Ledger, cluster: Cluster, compute: Compute) -> None:
        super().__init__(ledger, cluster, compute)
        self._in_flight: dict[str, asyncio.Task[None]] = {}
        self._prefetched: set[str] = set()
        self._errors: dict[str, BaseException] = {}

    @property
    def keys(self) -> list[str]:
        """What is being computed or waited for now."""
        return list(self._in_flight)

    async def records(self, steps: Sequence[ScoringStep]) -> list[Record]:
        """See `StepScheduler.ensure_all`."""
        await self.ensure(steps)
        return [await self._call(self._recorded, step) for step in steps]

    async def ensure(self, steps: Sequence[Checkpoint | ScoringStep]) -> None:
        """See `StepScheduler.ensure`; those that nobody has asked for yet are computed together.

        A waiter that is cancelled takes no computation down, for others may wait for it too.
        """
        self._prefetched.difference_update(step.key for step in steps)
        if errors := [self._errors.pop(step.key) for step in steps if step.key in self._errors]:
            raise errors[0]
        if new := [step for step in steps if step.key not in self._in_flight]:
            self._launch(new)
        for task in {self._in_flight[step.key] for step in steps}:
            await asyncio.shield(task)

    def prefetch(self, step: Checkpoint) -> None:
        """Have a checkpoint computed and do not wait for it; needs a running loop.

        An error is kept for whoever asks next: a step that fails ahead of its time is not computed twice to be reported.
        """
        self._errors.pop(step.key, None)
        self._start([step])

    def prefetch_scores(self, steps: Sequence[ScoringStep]) -> None:
        """As `prefetch`, for the scoring steps of one checkpoint, which are computed together."""
        if new := [step for step in steps if step.key not in self._in_flight and step.key not in self._errors]:
            self._prefetched.update(step.key for step in new)
            self._launch(new)

    def _start(self, steps: Sequence[Checkpoint]) -> None:
        for step in steps:
            if step.key not in self._in_flight and step.key not in self._errors:
                self._prefetched.add(step.key)
                self._launch([step])

    def _launch(self, steps: Sequence[Checkpoint | ScoringStep]) -> None:
        keys = [step.key for step in steps]
        task = asyncio.ensure_future(super().ensure(steps))
        self._in_flight |= dict.fromkeys(keys, task)

        def on_done(task: asyncio.Task[None]) -> None:
            error = None if task.cancelled() else task.exception()
            for key in keys:
                self._in_flight.pop(key, None)
                if key in self._prefetched:  # and nobody waits yet
                    self._prefetched.discard(key)
                    if error is not None:
                        self._errors[key] = error

        task.add_done_callback(on_done)

    async def _call(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.to_thread(function, *arguments)

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
