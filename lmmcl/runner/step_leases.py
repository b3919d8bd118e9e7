"""Which steps are still to be computed, and by whom: runs that share a store, on one machine or on clusters, compute each once.

`missing_steps` is the one question "is it recorded already?": the scheduler asks it before it has anything computed, and `leased`
asks it again at the moment when a computation begins, for another run may have been faster. With `workers: 0` that is when the
work begins; the task of a worker group leases its step when it begins to wait for the group's place, so a stage that queues for
GPUs is held by the run that queued first. A run that vanishes is found out (see `lmmcl.ledger.leases`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from lmmcl.config.cluster import Cluster
from lmmcl.ledger import Ledger
from lmmcl.ledger.leases import Held, Leases
from lmmcl.ledger.provenance import this_run
from lmmcl.steps import Checkpoint, ScoringStep

AnyStep = TypeVar("AnyStep", bound=Checkpoint | ScoringStep)

log = logging.getLogger("lmmcl")


def missing_steps(steps: Sequence[AnyStep], ledger: Ledger) -> list[AnyStep]:
    """Those that are still to be computed; looked for side by side where each look takes a round trip."""
    if ledger.is_local or len(steps) < 2:
        return [step for step in steps if not ledger.has_usable(step)]
    with ThreadPoolExecutor(8) as pool:
        return [step for step, recorded in zip(steps, pool.map(ledger.has_usable, steps), strict=True) if not recorded]


@dataclass
class Lease:
    """The steps to compute here and now, and the claims to them."""

    steps: list[Any]
    held: Held


@contextmanager
def leased(steps: Sequence[AnyStep], ledger: Ledger, cluster: Cluster) -> Iterator[Lease]:
    """Lease `steps` for the time of the `with`: those that nobody else holds, or recorded meanwhile, are to be computed."""
    with _claims(ledger, cluster).held([step.key for step in steps]) as held:
        yield Lease(missing_steps([step for step in steps if step.key in held.keys], ledger), held)


class OtherRuns:
    """What other runs compute now, as a waiting run sees it: a lease that is not renewed meanwhile becomes void."""

    def __init__(self, ledger: Ledger, cluster: Cluster) -> None:
        self._ledger, self._cluster = ledger, cluster
        self._claims: Leases | None = None
        self._logged: set[str] = set()

    def free(self, steps: Sequence[AnyStep]) -> list[AnyStep]:
        """Those of `steps` that no other run computes; the others are logged once."""
        if self._claims is None:  # opened where it is used: the store of a run on Ray is reached from the actor
            self._claims = _claims(self._ledger, self._cluster)
        free = []
        for step in steps:
            owner = self._claims.owner(step.key)
            if owner is None:
                self._claims.clear(step.key)
                free.append(step)
            elif step.key not in self._logged:
                self._logged.add(step.key)
                log.warning("%s is being computed by %s; waiting for it", step.label, owner)
        return free


def _claims(ledger: Ledger, cluster: Cluster) -> Leases:
    return Leases(ledger.files, cluster.claims, this_run())
