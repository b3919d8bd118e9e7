"""The grid on Ray Tune: a Tune trial is one of our trials, a driver that holds no GPU and walks its stages."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayActorError, RayError
from ray.tune.search.basic_variant import BasicVariantGenerator

from lmmcl.errors import explain
from lmmcl.ledger import Ledger
from lmmcl.runner.remote import WAITING_CPUS, RemoteSteps, start_steps_actor
from lmmcl.runner.search import Searching
from lmmcl.runner.search_tune import HalvingOnTune, Suggestions, trial_of
from lmmcl.runner.trial import Watcher, run_trial
from lmmcl.spec.cluster import Cluster
from lmmcl.spec.point import Space
from lmmcl.spec.trial import Trial

DRIVER = "lmmcl_driver"
"""A resource of clusters started here, for drivers alone."""
LOST_DRIVERS = 10
"""How often the driver of a trial is started again after its process or node was lost."""

LEAST_ON_JOINED = 8
"""Trials open on a cluster that has no nodes yet: as many nodes as its autoscaler is asked for at first."""
SAVE_SECONDS = 20.0
"""How long a run that is told to end waits for stages in training to save; Kubernetes kills after 30."""
RECOUNT_SECONDS = 2.0
"""How old a count of the cluster's resources may be."""


def run_on_ray(
    trials: Sequence[Trial], ledger: Ledger, cluster: Cluster, watcher: Watcher, searching: Searching | None = None
) -> None:
    """Run `trials` to their ends, or until their budgets or the scheduler of `searching` end them, and those that it proposes.

    A trial that fails is told to `watcher`, and the others go on.
    """
    searching = searching or Searching()
    with ray_cluster(cluster), _tune_storage(ledger, cluster) as storage:
        actor = start_steps_actor(ledger, cluster)
        by_key = {trial.key: trial for trial in trials}
        spaces = [proposer.space for proposer in searching.proposers]
        ahead = searching.halving is None
        driver = tune.with_resources(
            tune.with_parameters(_drive, trials=dict(by_key), spaces=spaces, actor=actor, ahead=ahead),
            driver_resources(cluster),
        )
        scheduler = HalvingOnTune(searching.halving, by_key) if searching.halving else None
        follow = _Follow(by_key, actor, watcher, scheduler)
        grid, config = _tune_search(by_key, cluster, watcher, searching)
        tuner = tune.Tuner(
            driver,
            param_space=grid,
            tune_config=tune.TuneConfig(**config, scheduler=scheduler, reuse_actors=True),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=storage,
                callbacks=[follow],
                verbose=0,
                log_to_file=False,
                failure_config=tune.FailureConfig(max_failures=LOST_DRIVERS),
            ),
        )
        try:
            follow.tell_lost(tuner.fit())
        except KeyboardInterrupt:
            _save_stages(actor)
            raise


def _tune_search(
    by_key: dict[str, Trial], cluster: Cluster, watcher: Watcher, searching: Searching
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tune's parameter space and the settings of its search: the grid, or a searcher that hands out proposed trials too."""
    total = len(by_key) + searching.coming
    if not searching.proposers:
        return {"trial": tune.grid_search(list(by_key))}, {"search_alg": _Grid(cluster, total)}
    suggestions = Suggestions(by_key, searching, _Room(cluster, total), watcher.trial_opened)
    return {}, {"search_alg": suggestions, "num_samples": total}


def _save_stages(actor: Any) -> None:
    """Let what trains save where it is; who asks a second time does not want to wait for it."""
    with suppress(RayError):
        ray.get(actor.save.remote(SAVE_SECONDS), timeout=SAVE_SECONDS + 5)


def _drive(
    config: dict[str, Any], trials: Mapping[str, Trial], spaces: Sequence[Space], actor: Any, ahead: bool
) -> None:
    """One Tune trial. Its own errors end it and are reported; what Tune starts again are lost drivers alone."""
    try:
        run_trial(trial_of(config, trials, spaces), RemoteSteps(actor), tune.report, ahead=ahead)
    except Exception as error:  # noqa: BLE001 - every reason why a trial ends is to be told
        tune.report({"failed": explain(error), "details": traceback.format_exc()})


class _Follow(tune.Callback):
    """Passes Tune's events, and the steps actor's notes, to the watcher."""

    def __init__(
        self, trials: Mapping[str, Trial], actor: Any, watcher: Watcher, scheduler: HalvingOnTune | None
    ) -> None:
        self._trials, self._actor, self._watcher, self._scheduler = trials, actor, watcher, scheduler
        self._pending: Any = None

    def __getstate__(self) -> dict[str, Any]:  # Tune saves its callbacks; a console and a database do not travel
        return {}

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        ours = self._trials[trial.config["trial"]]
        if "failed" in result:
            self._watcher.trial_failed(ours, result["failed"], result["details"])
        else:
            ended = self._scheduler.ended.get(ours.key) if self._scheduler else None
            self._watcher.stage_done(ours, {**result, "stopped": ended.to_dict()} if ended else result)

    def on_step_end(self, iteration: int, trials: list, **info: Any) -> None:
        """Tune's own loop turns several times a second; the notes are asked for without waiting for them."""
        if self._pending is None:
            self._pending = self._actor.running.remote()
        ready, _ = ray.wait([self._pending], timeout=0)
        if ready:
            with suppress(RayActorError):
                self._watcher.running(ray.get(self._pending))
            self._pending = None

    def tell_lost(self, results: tune.ResultGrid) -> None:
        """Tell the watcher of trials whose driver was lost too often."""
        for result in (results[number] for number in range(len(results))):
            if result.error is not None and result.config is not None:
                trial = self._trials[result.config["trial"]]
                self._watcher.trial_failed(trial, f"its driver was lost: {result.error}", str(result.error))


class _Room:
    """How many of a sweep's trials may be open now; it follows the cluster as that grows and shrinks."""

    def __init__(self, cluster: Cluster, trials: int) -> None:
        self._cluster, self._trials = cluster, trials
        self._open, self._counted = 1, float("-inf")

    def __call__(self) -> int:
        """Tune asks several times a second; the cluster is counted less often."""
        if time.monotonic() - self._counted > RECOUNT_SECONDS:
            self._open, self._counted = open_trials(self._cluster, self._trials), time.monotonic()
        return self._open


class _Grid(BasicVariantGenerator):
    """The grid in its order; how many of its trials are open at once follows the cluster."""

    def __init__(self, cluster: Cluster, trials: int) -> None:
        self._room = _Room(cluster, trials)
        super().__init__()

    @property
    def max_concurrent(self) -> int:
        """How many trials may be open now."""
        return self._room()

    @max_concurrent.setter
    def max_concurrent(self, given: int) -> None:
        """What the base class is given (none): we count."""


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


@contextmanager
def _tune_storage(ledger: Ledger, cluster: Cluster) -> Iterator[str]:
    """Where Tune keeps its own state. Nobody reads it afterwards, for the ledger says what is done: on this machine it is
    removed again; several nodes need a place that all of them see."""
    if ray_address(cluster) != "local":
        yield f"{ledger.store}/.ray"
        return
    with tempfile.TemporaryDirectory(prefix="lmmcl-tune-") as folder:
        yield folder


def ray_address(cluster: Cluster) -> str:
    """`local`, unless the file or, inside a job, Ray itself (RAY_ADDRESS) names a running cluster."""
    return os.environ.get("RAY_ADDRESS", "local") if cluster.ray.address == "local" else cluster.ray.address


@contextmanager
def ray_cluster(cluster: Cluster) -> Iterator[None]:
    """The cluster that the file names: started here for `local`, joined otherwise, and left as it was found."""
    _quiet_environment()
    if ray.is_initialized():  # inside a test's cluster
        yield
        return
    address = ray_address(cluster)
    here = address == "local"
    started: dict[str, Any] = (
        {
            "num_cpus": cluster.ray.cpus or os.cpu_count(),
            "resources": {**cluster.ray.resources, DRIVER: 1000},
            "include_dashboard": cluster.ray.dashboard,
        }
        if here
        else {}
    )
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **started)
    _end_on_sigterm()
    try:
        yield
    finally:
        ray.shutdown()


def _end_on_sigterm() -> None:
    """`ray job stop`, Slurm and Kubernetes ask by SIGTERM: end as at Ctrl-C. After `ray.init`, which sets a handler of its own."""
    if threading.current_thread() is threading.main_thread():

        def interrupt(number: int, frame: Any) -> None:
            raise KeyboardInterrupt

        signal.signal(signal.SIGTERM, interrupt)


def _quiet_environment() -> None:
    """Ray reads these when it starts; a person's own settings win."""
    for name, value in {
        "RAY_worker_niceness": "0",  # the sweep is what the machine is for
        "RAY_AIR_NEW_OUTPUT": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_AUTO_CALLBACK_SYNCER": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_WARN_THRESHOLD_S": "60",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
    }.items():
        os.environ.setdefault(name, value)
    # A trial's failure is told by us, in one line; Tune would print its traceback through four processes.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
