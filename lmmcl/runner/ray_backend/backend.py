"""A sweep on Ray from its start to its end: what leads to the first question is begun first, and Tune's trials join it.

The pre-trained model is asked in any case, so its scores are wanted before there is a trial: the process that checks the rows has
the libraries by then, and asks. On a machine of two CPUs nothing else is loaded beside it, as Ray's own processes need the other.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from lmmcl.config.cluster import Cluster
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.reports.formatting import first_line
from lmmcl.runner.execute import load_libraries
from lmmcl.runner.preflight import RowsToCheck, examine_rows, report_rows
from lmmcl.runner.ray_backend.ray_folders import tune_storage
from lmmcl.runner.ray_backend.start import ray_address, ray_cluster
from lmmcl.runner.ray_backend.steps_actor import start_steps_actor
from lmmcl.runner.trial_driver import RunListener
from lmmcl.search.proposer import Searching
from lmmcl.steps.trial import Trial
from lmmcl.training.ray_train.retry_policy import root_of
from lmmcl.weights.freed_memory import collection_paused

FEW_CPUS = 2
"""A machine on which one process that loads libraries, Ray's own and the command leave no CPU idle."""
FIRST_SECONDS = 30.0
"""How long the trials wait at most for the first question; what is slower than that leaves room for them."""
POLL_SECONDS = 0.1


def run_on_ray(
    trials: Sequence[Trial],
    ledger: Ledger,
    cluster: Cluster,
    watcher: RunListener,
    searching: Searching,
    rows: Sequence[RowsToCheck],
) -> None:
    """Run `trials` to their ends, or until their budgets or the scheduler of `searching` end them, and those that it proposes.

    A trial that fails is reported to `watcher`, and the others continue. Raises UserError for `rows` that cannot be read or passed.
    """
    with ray_cluster(cluster), tune_storage(ledger, here=ray_address(cluster) == "local") as storage:
        actor = start_steps_actor(ledger, cluster)
        if rows:
            watcher.phase("loading libraries and checking the data")
            report_rows(*_examine(rows, cluster), watcher.note)
        watcher.begin()
        if trials:
            actor.prefetch_scores.remote(trials[0].stages[0].asked)
            if ray_address(cluster) == "local" and ray.cluster_resources().get("CPU", 0) <= FEW_CPUS:
                _wait_for_question(actor, watcher)
        watcher.phase("loading Ray Tune")
        with collection_paused():
            from lmmcl.runner.ray_backend.tune import tune_trials
        watcher.phase("starting the trials")
        tune_trials(trials, actor, cluster, watcher, searching, storage)


def _examine(rows: Sequence[RowsToCheck], cluster: Cluster) -> tuple[list[str], list[Any]]:
    """What `examine_rows` finds: in a process that then asks the questions, on a cluster started here; else in this one, for a
    cluster that grows may have no node yet."""
    if ray_address(cluster) != "local":
        return examine_rows(rows)
    try:
        result: tuple[list[str], list[Any]] = ray.get(
            _examine_there.options(num_cpus=cluster.evaluation.cpus, max_retries=0).remote(list(rows))
        )
    except RayTaskError as error:
        raise root_of(error) from error
    except RayError as error:  # the process died: checking again in this one might end it too
        raise UserError(
            f"the process that checks the rows of the data died: {first_line(str(error))}. `lmmcl data check FILE` checks one "
            "file at a time"
        ) from error
    return result


@ray.remote
def _examine_there(rows: list[RowsToCheck]) -> tuple[list[str], list[Any]]:
    load_libraries()
    return examine_rows(rows)


def _wait_for_question(actor: Any, watcher: RunListener) -> None:
    """Return when the first questions are asked, or there are none to ask."""
    end = time.monotonic() + FIRST_SECONDS
    while time.monotonic() < end:
        notes = ray.get(actor.running.remote())
        watcher.running(notes)
        if not notes or any("benchmark" in note for note in notes.values()):
            return
        time.sleep(POLL_SECONDS)
