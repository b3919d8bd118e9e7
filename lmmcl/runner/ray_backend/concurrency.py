"""How much of a sweep a Ray cluster has room for: trials open at once, and what the driver of one holds while it waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ray

from lmmcl.config.cluster import Cluster
from lmmcl.runner.ray_backend.start import DRIVER, ray_address
from lmmcl.runner.ray_backend.steps_actor import Load

WAITING_CPUS = 0.001
"""What the driver of a trial asks for where there is nothing but CPUs: Tune accepts no 0."""
LEAST_ON_JOINED = 8
"""Trials open on a cluster that has no nodes yet: as many nodes as its autoscaler is asked for at first."""
RECOUNT_SECONDS = 2.0
"""How old a count of the cluster's resources may be."""
FEW_TRIALS = 4
"""For each fine-tune that fits: the process of a further driver takes longer to start than it saves in so few trials."""

LoadOf = Callable[[], Load]


class ConcurrencyLimit:
    """How many of a sweep's trials may be open now; it follows the cluster as that grows and shrinks.

    On CPUs alone the process of a driver takes two seconds of a CPU to start, of those that steps need. A sweep of few trials
    opens as many as fine-tunes fit, which keeps these CPUs busy, as each trial is evaluated and trained at once; and one more
    whenever all wait and a CPU is idle, as where another run computes what they wait for.
    """

    def __init__(self, cluster: Cluster, trials: int, load: LoadOf | None = None) -> None:
        self._cluster, self._trials, self._load = cluster, trials, load
        self._open, self._counted = 1, float("-inf")
        self._more = 0
        self._was_idle = False

    def __getstate__(self) -> dict[str, Any]:  # Tune saves its search; what asks an actor does not travel
        return {}

    def __call__(self) -> int:
        """Tune asks several times a second; the cluster is counted less often."""
        if time.monotonic() - self._counted > RECOUNT_SECONDS:
            self._open, self._counted = self._count(), time.monotonic()
        return self._open

    def _count(self) -> int:
        most = open_trials(self._cluster, self._trials)
        fit = fine_tunes_fit(self._cluster)
        if self._load is None or not drivers_cost(self._cluster) or self._trials > FEW_TRIALS * fit:
            return most
        enough = max(1, min(most, fit + self._more))
        load = self._load()
        idle = load.waiting >= enough and load.computing < fit
        if idle and self._was_idle:  # not just between two steps
            self._more += enough < most
        self._was_idle = idle
        return max(1, min(most, fit + self._more))


def drivers_cost(cluster: Cluster) -> bool:
    """Whether the processes of drivers take time from the steps: here, with steps on CPUs, in one process each."""
    place = cluster.training
    return (
        ray_address(cluster) == "local"
        and cluster.max_open_trials is None
        and not (place.workers or place.gpus_per_worker or cluster.evaluation.gpus)
    )


def fine_tunes_fit(cluster: Cluster) -> int:
    """How many fine-tunes the cluster has room for at once, as it is now."""
    have = ray.cluster_resources()
    place = cluster.training
    group = place.fewest_workers
    needs = {"CPU": place.cpus_per_worker, "GPU": place.gpus_per_worker, **place.resources_per_worker}
    return int(min(have.get(name, 0) / (amount * group) for name, amount in needs.items() if amount))


def open_trials(cluster: Cluster, trials: int) -> int:
    """How many trials are open at once: twice as many as fine-tunes fit, so that one is always ready when another waits.

    On a cluster that was joined a few more: an autoscaler adds nodes only for what waits, so they make it grow from nothing,
    and the trials that are opened as it grows make it grow on.
    """
    if cluster.max_open_trials is not None:
        return cluster.max_open_trials
    least = 1 if ray_address(cluster) == "local" else LEAST_ON_JOINED
    return max(1, min(trials, max(least, 2 * max(1, fine_tunes_fit(cluster)))))


def driver_resources(cluster: Cluster) -> dict[str, float]:
    """What the driver of a trial holds while it waits: no part of a CPU where there is anything else to ask for.

    On two CPUs, two drivers with a thousandth each would leave room for one fine-tune instead of two.
    """
    if cluster.driver.resources:
        return {"CPU": 0, **cluster.driver.resources}
    return {"CPU": 0, DRIVER: 1} if DRIVER in ray.cluster_resources() else {"CPU": WAITING_CPUS}
