"""The grid on Ray Tune: a Tune trial is one of our trials, a driver that holds no GPU and walks its stages."""

from __future__ import annotations

import gc
import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import GetTimeoutError, RayActorError, RayError
from ray.tune.search.basic_variant import BasicVariantGenerator

from lmmcl.config.cluster import Cluster
from lmmcl.config.grid_point import Space
from lmmcl.errors import explain
from lmmcl.private_api.ray_private import forget_ended
from lmmcl.runner.ray_backend.concurrency import ConcurrencyLimit, driver_resources
from lmmcl.runner.ray_backend.listed_trials import ListedTrials
from lmmcl.runner.ray_backend.ray_folders import leave_working_folder, remove_empty
from lmmcl.runner.ray_backend.searcher import REPORT, AshaOnTune, ProposalSearcher, proposed_trial
from lmmcl.runner.ray_backend.steps_actor import NOTE_SECONDS, Load, RemoteSteps
from lmmcl.runner.trial_driver import RunListener, run_trial
from lmmcl.search.proposer import Searching
from lmmcl.steps.trial import Trial

LOST_DRIVERS = 10
"""How often the driver of a trial is started again after its process or node was lost."""

LOAD_SECONDS = 1.0
"""How long Tune's loop waits at most to hear how much there is to do."""
SAVE_SECONDS = 20.0
"""How long a run that was asked to end waits for stages in training to save; Kubernetes kills after 30."""


def tune_trials(
    trials: Sequence[Trial], actor: Any, cluster: Cluster, watcher: RunListener, searching: Searching, storage: str
) -> None:
    """Walk `trials` and those that `searching` proposes; `actor` has their steps (see `run_on_ray` in `backend`)."""
    by_key = {trial.key: trial for trial in trials}
    spaces = [proposer.space for proposer in searching.proposers]
    ahead = searching.halving is None
    driver = tune.with_resources(
        tune.with_parameters(_drive, listed=ListedTrials(trials), spaces=spaces, actor=actor, ahead=ahead),
        _request_for(driver_resources(cluster)),
    )
    scheduler = AshaOnTune(searching.halving, by_key) if searching.halving else None
    follow = ReporterCallback(by_key, actor, watcher, scheduler)
    grid, config = _tune_search(by_key, cluster, watcher, searching, actor)
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


def _request_for(resources: Mapping[str, float]) -> Callable[[dict[str, Any]], tune.PlacementGroupFactory]:
    """What tells Tune the resources of a trial. A plain value would travel with the driver, which Tune unpickles for each trial,
    and each would keep its copy."""
    return partial(_shared_request, tuple(resources.items()))


def _shared_request(resources: tuple[tuple[str, float], ...], config: dict[str, Any]) -> tune.PlacementGroupFactory:
    return _request(resources)


@cache
def _request(resources: tuple[tuple[str, float], ...]) -> tune.PlacementGroupFactory:
    return tune.PlacementGroupFactory([dict(resources)])


def _tune_search(
    by_key: dict[str, Trial], cluster: Cluster, watcher: RunListener, searching: Searching, actor: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tune's parameter space and the settings of its search: the grid, or a searcher that hands out proposed trials too."""
    total = len(by_key) + searching.remaining
    # Where scores may end a trial, nothing is computed ahead of them: one computation a trial.
    ahead = searching.halving is None and not any(trial.stop for trial in by_key.values())
    limit = ConcurrencyLimit(cluster, total, partial(_load, actor) if ahead else None)
    if not searching.proposers:
        return {"trial": tune.grid_search(list(by_key))}, {"search_alg": _Grid(limit)}
    suggestions = ProposalSearcher(by_key, searching, limit, watcher.trial_opened)
    return {}, {"search_alg": suggestions, "num_samples": total}


def _load(actor: Any) -> Load:
    try:
        load: Load = ray.get(actor.load.remote(), timeout=LOAD_SECONDS)
    except (RayActorError, GetTimeoutError):  # it is being started again: nobody is known to wait
        return Load(waiting=0, computing=0)
    return load


def _save_stages(actor: Any) -> None:
    """Let stages in training save where they are; a second interrupt does not wait for that."""
    with suppress(RayError):
        ray.get(actor.save.remote(SAVE_SECONDS), timeout=SAVE_SECONDS + 5)


def _drive(config: dict[str, Any], listed: ListedTrials, spaces: Sequence[Space], actor: Any, ahead: bool) -> None:
    """One Tune trial. Its own errors end it and are reported; what Tune starts again are lost drivers alone."""
    _keep_libraries()
    leave_working_folder()
    try:
        trial = proposed_trial(config, spaces) or listed.get(config["trial"])
        run_trial(trial, RemoteSteps(actor), _report, ahead=ahead)
    except Exception as error:  # noqa: BLE001 - every reason why a trial ends is reported
        _report({"failed": explain(error), "details": traceback.format_exc()})


@cache  # once: what is garbage at that moment stays for ever, and a driver walks many trials
def _keep_libraries() -> None:
    """Let no collection look at what is imported; at the driver's end that would take half a second."""
    gc.collect()
    gc.freeze()


def _report(report: Mapping[str, Any]) -> None:
    """Report as text: of each number Tune would keep a history, tens of KB for every trial of the sweep."""
    tune.report({REPORT: json.dumps(report)})


def _forget(result: dict[str, Any]) -> None:
    """Empty a result that has been passed on: Tune would keep it of every trial of the sweep, and of each number a history.

    An empty text stays: of a trial without any value Tune would print a line at its end.
    """
    result.clear()
    result[REPORT] = ""


class ReporterCallback(tune.Callback):
    """Passes Tune's events, and the steps actor's notes, to the watcher."""

    def __init__(
        self, trials: Mapping[str, Trial], actor: Any, watcher: RunListener, scheduler: AshaOnTune | None
    ) -> None:
        self._trials, self._actor, self._watcher, self._scheduler = trials, actor, watcher, scheduler
        self._pending: Any = None
        self._asked = float("-inf")

    def __getstate__(self) -> dict[str, Any]:  # Tune saves its callbacks; a console and a database do not travel
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        ours = self._trials[trial.config["trial"]]
        report = json.loads(result[REPORT])
        _forget(result)
        if "failed" in report:
            self._watcher.trial_failed(ours, report["failed"], report["details"])
        else:
            ended = self._scheduler.ended.get(ours.key) if self._scheduler else None
            self._watcher.stage_done(ours, {**report, "stopped": ended.to_dict()} if ended else report)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Let go of what Tune keeps of an ended trial: its folder on this machine, which is empty, and what its actor answered."""
        remove_empty(Path(trial.local_path))
        forget_ended(trial)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Tune's own loop turns ten times a second; the notes are asked for less often, and without waiting for them."""
        if self._pending is None:
            if time.monotonic() - self._asked < NOTE_SECONDS:
                return
            self._asked = time.monotonic()
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


class _Grid(BasicVariantGenerator):
    """The grid in its order; how many of its trials are open at once follows the cluster."""

    def __init__(self, limit: ConcurrencyLimit) -> None:
        self._room = limit
        super().__init__()

    @property
    def max_concurrent(self) -> int:
        """How many trials may be open now."""
        return self._room()

    @max_concurrent.setter
    def max_concurrent(self, value: int) -> None:
        """What the base class is given (none): we count."""
