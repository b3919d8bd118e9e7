"""Plan, run and read a sweep from Python: the calls behind `lmmcl.plan`, `lmmcl.run` and `lmmcl.results`."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from lmmcl.api.dataframes import Results
from lmmcl.config.cluster import Cluster, load_cluster
from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.config.validation import validate
from lmmcl.environment import neutral_environment
from lmmcl.ledger.named_store import open_ledger
from lmmcl.planning.plan import Plan, make_plan
from lmmcl.terminal import PIPE_WIDTH, safe_console

ClusterLike = str | Path | Mapping[str, Any] | Cluster | None


def plan(sweep: Sweep | str | Path, *, store: str | Path | None = None, cluster: ClusterLike = None) -> Plan:
    """What a sweep needs, what is recorded and what is to run; computes nothing. `print(plan)` shows it as `lmmcl plan` does.

    `sweep` is a Sweep or the path of a sweep file; `store` a folder or URI (default: LMMCL_STORE, else the cluster's, else
    `./lmmcl-store`); `cluster` the path of a cluster file, or its settings as a mapping. With a cluster, the plan also estimates
    memory and time, and `plan.infeasible` says what does not fit.
    """
    place = _cluster(cluster)
    return make_plan(_sweep(sweep), open_ledger(_text(store), place), place if cluster is not None else None)


def run(
    sweep: Sweep | str | Path,
    *,
    store: str | Path | None = None,
    cluster: ClusterLike = None,
    inline: bool = False,
    mlflow: str | None = None,
    tracking: Sequence[str] = (),
    quiet: bool = False,
) -> Results:
    """Compute what is missing of a sweep, as `lmmcl run` does, and return its results.

    The same call resumes, extends and repairs. `inline` works in this process without Ray; `mlflow` is a tracking URI, or
    `off` (default: LMMCL_MLFLOW, else the cluster's, else a database in the store); `tracking` are names
    of further trackers (tensorboard, trackio, wandb); `quiet` prints nothing. `sweep`, `store`
    and `cluster` are as in `plan`. A trial that fails does not stop the others: see `Results.failures`, and the columns `state`
    and `error` of `Results.trials()`.
    Raises UserError for bad input, before anything is computed.
    """
    place, loaded = _cluster(cluster), _sweep(sweep)
    ledger = open_ledger(_text(store), place)
    with neutral_environment():  # before torch is imported, and before Ray hands the environment to its workers
        from lmmcl.runner.command import run_and_report

        console = _console(quiet)
        run_and_report(loaded, ledger, place, inline=inline, mlflow=mlflow, console=console, tracking=tracking)
    return Results(loaded, ledger)


def results(sweep: Sweep | str | Path, *, store: str | Path | None = None, cluster: ClusterLike = None) -> Results:
    """What the store holds of a sweep, finished or not; computes nothing, and imports neither torch nor Ray.

    Arguments are as in `plan`. Raises UserError where there is no store.
    """
    ledger = open_ledger(_text(store), _cluster(cluster))
    ledger.check_exists()
    return Results(_sweep(sweep), ledger)


def _sweep(sweep: Sweep | str | Path) -> Sweep:
    return sweep if isinstance(sweep, Sweep) else load_sweep(sweep)


def _cluster(cluster: ClusterLike) -> Cluster:
    if isinstance(cluster, Cluster):
        return cluster
    if isinstance(cluster, Mapping):
        return validate(Cluster, dict(cluster), file="cluster")
    return load_cluster(None if cluster is None else Path(cluster))


def _text(store: str | Path | None) -> str | None:
    return None if store is None else str(store)


def _console(quiet: bool) -> Console:
    """Plain lines on standard output, or nowhere: left to itself, rich writes HTML wherever it finds itself in a notebook."""
    file = io.StringIO() if quiet else None
    return safe_console(file=file, force_jupyter=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
