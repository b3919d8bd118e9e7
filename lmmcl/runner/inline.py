"""The walk in one process, without Ray: for debuggers, tests and machines where Ray is not wanted (`--inline`)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from lmmcl.ledger import Ledger, Record
from lmmcl.runner.execute import Progress, compute_checkpoint, compute_scores
from lmmcl.runner.flights import Flights
from lmmcl.spec.cluster import Cluster
from lmmcl.spec.steps import Asked, Checkpoint


class InlineLauncher:
    """Computes each step in the caller."""

    def __init__(self, ledger: Ledger, cluster: Cluster, progress: Progress) -> None:
        self._ledger, self._cluster, self._progress = ledger, cluster, progress

    async def checkpoint(self, step: Checkpoint) -> None:
        compute_checkpoint(step, self._ledger, self._cluster, self._progress)

    async def scores(self, steps: Sequence[Asked]) -> None:
        compute_scores(steps, self._ledger, self._cluster, self._progress)


class InlineSteps:
    """Records from this process."""

    def __init__(self, ledger: Ledger, cluster: Cluster, progress: Progress) -> None:
        self._flights = Flights(ledger, InlineLauncher(ledger, cluster, progress))

    def ensure_all(self, steps: Sequence[Asked]) -> list[Record]:
        """See `Steps.ensure_all`."""
        return asyncio.run(self._flights.ensure_scores(steps))

    def begin(self, step: Checkpoint) -> None:
        """Nothing: in one process there is no room beside what is asked for now."""
