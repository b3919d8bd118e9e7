"""Private parts of Ray: what an upload of a folder holds, how a worker group fails to start, what is too loud or slow to end."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NEWEST = (2, 60)
"""The newest minor version whose private parts were looked at."""
TALKATIVE = ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging")
"""Loggers, below `ray`, that tell of packages and sockets when a job is submitted."""


def package_files(folder: Path, excludes: Sequence[str]) -> dict[Path, int]:
    """The files that Ray would upload as a working directory, with their bytes: this walks as its upload does."""
    from ray._private.ray_constants import RAY_RUNTIME_ENV_IGNORE_GITIGNORE, get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import _dir_travel, _get_excludes

    files: dict[Path, int] = {}
    root = folder.resolve()

    def keep(path: Path) -> None:
        if path.is_file():
            files[path.resolve()] = path.stat().st_size

    left_out = _get_excludes(root, [*get_runtime_env_default_excludes(), *excludes])
    with_gitignore = os.environ.get(RAY_RUNTIME_ENV_IGNORE_GITIGNORE, "0") != "1"
    _dir_travel(root, [left_out], keep, include_gitignore=with_gitignore, logger=logging.getLogger(__name__))
    return files


def most_package_bytes() -> int:
    """From which size on Ray refuses to upload a folder."""
    from ray._private.runtime_env import packaging

    return packaging.GCS_STORAGE_MAX_SIZE


def quiet_submission() -> None:
    """Keep Ray from telling of packages and sockets when a job is submitted."""
    for name in TALKATIVE:
        logging.getLogger(f"ray.{name}").setLevel(logging.WARNING)


def no_place_errors() -> tuple[type[Exception], ...]:
    """What Ray Train's controller meets when there is no room for a worker group."""
    from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError, WorkerGroupStartupTimeoutError

    return (WorkerGroupStartupFailedError, WorkerGroupStartupTimeoutError)


def damaged_run_error() -> type[Exception]:
    """What Ray Train raises when a run's list of reported checkpoints cannot be read."""
    from ray.train.v2._internal.exceptions import CheckpointManagerInitializationError

    return CheckpointManagerInitializationError


def reports_file() -> str:
    """Ray Train's list of what a run has reported, in the run's folder."""
    from ray.train.v2._internal.constants import CHECKPOINT_MANAGER_SNAPSHOT_FILENAME

    return CHECKPOINT_MANAGER_SNAPSHOT_FILENAME


def end_autoscaler_monitor() -> None:
    """End the process of a cluster started here that watches for more nodes. It keeps nothing; once Ray's store has ended it does
    not hear that it should end, and `ray.shutdown` would wait a second for it."""
    from ray._private import worker

    if (node := worker._global_node) is not None:
        node.kill_monitor(check_alive=False)


def end_log_monitor() -> None:
    """End the process of a cluster started here that sends what workers print to drivers and the dashboard: it looks for that ten
    times a second, and where nobody asks for it that is for nothing. The files of the logs stay, and are written by the workers."""
    from ray._private import worker

    if (node := worker._global_node) is not None:
        node.kill_log_monitor(check_alive=False)


def forget_ended(trial: Any) -> None:
    """Let go of what a Tune trial that has ended asked its actor when it began: each answer is an object in Ray's memory."""
    trial._default_result_or_future = None
