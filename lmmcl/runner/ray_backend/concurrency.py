"""How much of a sweep a Ray cluster has room for: trials open at once, and what the driver of one holds while it waits."""

from __future__ import annotations

import time

import ray

from lmmcl.config.cluster import Cluster
from lmmcl.runner.ray_backend.start import DRIVER, ray_address

WAITING_CPUS = 0.001
"""What the driver of a trial asks for where there is nothing but CPUs: Tune accepts no 0."""
LEAST_ON_JOINED = 8
"""Trials open on a cluster that has no nodes yet: as many nodes as its autoscaler is asked for at first."""
RECOUNT_SECONDS = 2.0
"""How old a count of the cluster's resources may be."""


class ConcurrencyLimit:
    """How many of a sweep's trials may be open now; it follows the cluster as that grows and shrinks."""

    def __init__(self, cluster: Cluster, trials: int) -> None:
        self._cluster, self._trials = cluster, trials
        self._open, self._counted = 1, float("-inf")

    def __call__(self) -> int:
        """Tune asks several times a second; the cluster is counted less often."""
        if time.monotonic() - self._counted > RECOUNT_SECONDS:
            self._open, self._counted = open_trials(self._cluster, self._trials), time.monotonic()
        return self._open


def open_trials(cluster: Cluster, trials: int) -> int:
    """How many trials are open at once: twice as many as fine-tunes fit, so that one is always ready when another waits.

    On a cluster that was joined a few more: an autoscaler adds nodes only for what waits, so they make it grow from nothing,
    and the trials that are opened as it grows make it grow on.
    """
    if cluster.max_open_trials is not None:
        return cluster.max_open_trials
    have = ray.cluster_resources()
    place = cluster.training
    group = place.fewest_workers
    needs = {"CPU": place.cpus_per_worker, "GPU": place.gpus_per_worker, **place.resources_per_worker}
    fit = min(have.get(name, 0) / (amount * group) for name, amount in needs.items() if amount)
    least = 1 if ray_address(cluster) == "local" else LEAST_ON_JOINED
    return max(1, min(trials, max(least, 2 * max(1, int(fit)))))


def driver_resources(cluster: Cluster) -> dict[str, float]:
    """What the driver of a trial holds while it waits: no part of a CPU where there is anything else to ask for.

    On two CPUs, two drivers with a thousandth each would leave room for one fine-tune instead of two.
    """
    if cluster.driver.resources:
        return {"CPU": 0, **cluster.driver.resources}
    return {"CPU": 0, DRIVER: 1} if DRIVER in ray.cluster_resources() else {"CPU": WAITING_CPUS}
