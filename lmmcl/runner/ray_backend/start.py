"""Ray for one run: the cluster that its file names, started here or joined, and told to be quiet."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from lmmcl.config.cluster import Cluster
from lmmcl.private_api.ray_private import end_autoscaler_monitor, end_log_monitor
from lmmcl.runner.ray_backend.ray_folders import own_session
from lmmcl.runner.ray_backend.start_errors import check_address, start_error
from lmmcl.weights.freed_memory import HUGE_PAGES

DRIVER = "lmmcl_driver"
"""A resource of clusters started here, for drivers alone."""
ANSWER_SECONDS = 10
"""How long a cluster that is to be joined may take to answer."""


def ray_address(cluster: Cluster) -> str:
    """`local`, unless the file or, inside a job, Ray itself (RAY_ADDRESS) names a running cluster."""
    return (os.environ.get("RAY_ADDRESS") or "local") if cluster.ray.address == "local" else cluster.ray.address


@contextmanager
def ray_cluster(cluster: Cluster) -> Iterator[None]:
    """The cluster that the file names: started here for `local`, joined otherwise, and left as it was found."""
    _quiet_environment()
    if ray.is_initialized():  # inside a test's cluster
        yield
        return
    address = ray_address(cluster)
    here = address == "local"
    unwatched = here and not cluster.ray.dashboard
    if unwatched:
        # An account of every task, and measurements of every process: the dashboard alone shows them.
        os.environ.setdefault("RAY_task_events_report_interval_ms", "0")
        os.environ.setdefault("RAY_enable_metrics_collection", "0")
        os.environ.setdefault("REPORTER_UPDATE_INTERVAL_MS", "3600000")
    started: dict[str, Any] = (
        {
            "num_cpus": cluster.ray.cpus or os.cpu_count(),
            "resources": {**cluster.ray.resources, DRIVER: 1000},
            "include_dashboard": cluster.ray.dashboard,
        }
        if here
        else {}
    )
    _join(address, started)
    _end_on_sigterm()
    try:
        if unwatched:
            end_log_monitor()
        yield
    finally:
        end_autoscaler_monitor()
        ray.shutdown()


def _join(address: str, started: dict[str, Any]) -> None:
    """`ray.init`; raises UserError where no cluster answers (Ray would try for minutes), or none gets up on this machine."""
    check_address(address)
    try:
        _wait_for(address)
        context: Any = ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **started)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # Ray may exit the process (SystemExit) where a cluster does not answer
        if (explained := start_error(error, address)) is None:
            raise
        raise explained from error
    if address == "local":
        own_session(Path(context.address_info["session_dir"]))


def _wait_for(address: str) -> None:
    """Return when something listens at `address` (host:port; others are Ray's to look for); else raises ConnectionError."""
    host, _, port = address.rpartition(":")
    end = time.monotonic() + ANSWER_SECONDS
    while port.isdigit() and "/" not in address:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
            return
        except ConnectionError:  # its head may have been started a moment ago
            if time.monotonic() > end:
                raise
            time.sleep(0.5)
        except OSError as error:  # no such name, no way there, no answer
            raise ConnectionError(str(error)) from error


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
        "TUNE_GLOBAL_CHECKPOINT_S": "inf",  # its snapshots hold all trials, and nobody reads them: the store says what is done
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
        **HUGE_PAGES,
    }.items():
        os.environ.setdefault(name, value)
    # We report a trial's failure ourselves, in one line; Tune would print its traceback through four processes.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
