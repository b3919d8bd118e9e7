"""Where a sweep is tracked: MLflow, and trackers beside it that are filled from the same results."""

from __future__ import annotations

import importlib.util
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lmmcl.config.cluster import BESIDE_MLFLOW, Cluster
from lmmcl.errors import UserError, unknown
from lmmcl.reports.results import TrialResult
from lmmcl.tracking.run_documents import run_document

OFF = "off"
"""The tracking URI that means none."""
PACKAGES = {"tensorboard": "tensorboardX", "trackio": "trackio", "wandb": "wandb"}
SHOWN_AS = {"tensorboard": "TensorBoard", "trackio": "Trackio", "wandb": "W&B"}
LONGEST_ERROR = 300


@dataclass(frozen=True)
class Destinations:
    """`mlflow` is a tracking URI, `off`, or None for the default one; `beside` are the names of other trackers."""

    mlflow: str | None
    beside: tuple[str, ...] = ()


def destinations(
    cluster: Cluster, mlflow: str | None = None, tracking: Sequence[str] = (), *, installed: bool = True
) -> Destinations:
    """What options ask for, else what the cluster file says; raises UserError for a tracker that is unknown or not `installed`.

    `mlflow` is a URI or `off`; `tracking` are names of trackers, which are used besides MLflow unless the list of the cluster
    file leaves that out.
    """
    listed = [cluster.tracking] if isinstance(cluster.tracking, str) else list(cluster.tracking or ["mlflow"])
    for name in tracking:
        if name not in BESIDE_MLFLOW:
            raise UserError(f"--tracking: {unknown('tracker', name, BESIDE_MLFLOW)}")
    beside = tuple(dict.fromkeys([*(place for place in listed if place in BESIDE_MLFLOW), *tracking]))
    for name in beside if installed else ():
        if importlib.util.find_spec(PACKAGES[name]) is None:
            raise UserError(f"tracking: {name} needs the package {PACKAGES[name]}: pip install 'lmmcl[{name}]'")
    ours = [place for place in listed if place not in BESIDE_MLFLOW]
    uri = mlflow or next((place for place in ours if place != "mlflow"), None)
    return Destinations(uri if uri or ours else OFF, beside)


def how_to_look(name: str, project: str, folder: Path) -> str:
    """The command that shows what a tracker holds of a sweep."""
    if name == "tensorboard":
        return f"tensorboard --logdir {shlex.quote(str(folder))}"
    if name == "trackio":
        return f"trackio show --project {shlex.quote(project)}"
    return f"project {project}; runs kept offline: wandb sync {shlex.quote(str(folder / 'wandb'))}/*"


class WriterProcess:
    """A tracker beside MLflow, written by a process of its own (see `lmmcl.tracking.writers`); for one thread.

    Raises UserError with the library's words where a trial is refused, and where the process has ended.
    """

    def __init__(self, name: str, project: str, folder: Path) -> None:
        self._name, self._project = name, project
        command = [sys.executable, "-m", "lmmcl.tracking.writers", name, str(folder)]
        # what the libraries print is for nobody: errors come as answers
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8"
        )

    def log_trial(self, trial: TrialResult, *, running: bool = True) -> str:
        """Write all that is known of a trial, over what was written of it before; returns its key."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(run_document(trial, self._project)) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            raise UserError(f"{self._name} ended with exit code {self._process.wait()}")
        if error := json.loads(line).get("error"):
            raise UserError(f"{self._name}: {error[:LONGEST_ERROR]}")
        return trial.key

    def log_report(self, files: Sequence[Path], note: str = "") -> str:
        """These trackers keep numbers; the page lies in the store."""
        return ""

    def close(self) -> None:
        """End the process once it has written what it was given."""
        assert self._process.stdin is not None
        with suppress(OSError):  # a process that has ended already
            self._process.stdin.close()
        self._process.wait(timeout=60)
