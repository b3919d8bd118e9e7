"""A sweep in MLflow: a view of the ledger that can be filled again at any time.

Experiment = sweep. Each trial is one top-level run (nested runs collapse in MLflow's table and draw no charts), each
fine-tuned stage a run nested in it for its loss curve, and the report a run of its own kind. Everything is found by tag
before it is made, so logging live, after a resume, or from the ledger is one code and adds nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lmmcl.private_api.mlflow_private import NOTE_TAG, TABLES_TAG, tables_value
from lmmcl.reports.results import StageResult, TrialResult, finite
from lmmcl.tracking.database import alone, sqlite_file, with_credentials_apart
from lmmcl.tracking.mlflow_names import matrix_table, metric_name, pace_metrics, stage_metrics, trial_params
from lmmcl.tracking.mlflow_runs import Run, Runs
from lmmcl.tracking.sqlite_file import no_stray_folder, prepare_database

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

LONGEST_TAG = 5000
STAGES_LOGGED, UPDATES_LOGGED = "lmmcl.stages_logged", "lmmcl.updates_logged"
MATRIX = "matrix.json"
OFF_THE_CURVE = ("update", "updates_per_second")  # the x axis; and what says nothing of learning but costs a third more
Extras = Callable[[TrialResult], tuple[Mapping[str, str], Mapping[str, str]]]
"""From a trial to its further tags, and its tables (JSON text) by artifact name."""
_STATUS = {"done": "FINISHED", "stopped": "FINISHED", "failed": "FAILED"}


class Tracker:
    """Logs the trials of one sweep to one MLflow store; idempotent, for one thread.

    `artifact_location` is where a new experiment keeps its files (None leaves it to the server); `extras` tells what else to
    log of a trial (see `lmmcl.tracking.extras`). Raises what
    MlflowClient raises when the store cannot be reached, and UserError when the experiment was deleted.
    """

    def __init__(
        self, uri: str, sweep: str, artifact_location: str | None = None, *, extras: Extras | None = None
    ) -> None:
        self.uri, self.sweep, self._extras = uri, sweep, extras or (lambda trial: ({}, {}))
        self._client = quiet_client(uri, artifact_location)
        self._runs = Runs(self._client, sweep, artifact_location)
        self.experiment_id = self._runs.experiment_id

    def log_trial(self, trial: TrialResult, *, running: bool = True) -> str:
        """Log what is not there yet of a trial and return its run id.

        A trial that is neither done nor failed is shown as RUNNING, or as KILLED when it is `running` no longer.
        """
        run = self._trial_run(trial)
        logged = _logged(run)
        digests = {str(stage.number): _digest(stage) for stage in trial.stages}
        news = [stage for stage in trial.stages if logged.get(str(stage.number)) != digests[str(stage.number)]]
        points = [point for stage in news for point in self._points(run, stage, again=str(stage.number) in logged)]
        self._runs.log(run, points, trial_params(trial), {})
        curved = [stage for stage in news if stage.probe_curve or stage.score_curve or _rows(stage)]
        for stage, nested in zip(curved, self._runs.nested(run, trial, curved), strict=True):
            self._log_curve(nested, stage)
        tags = {"lmmcl.state": trial.state, "lmmcl.error": (trial.error or "")[:LONGEST_TAG]}
        tags["lmmcl.stopped"] = json.dumps(trial.stopped.to_dict()) if trial.stopped else ""
        if news:
            more, tables = self._extras(trial)
            tags |= more
            for name, table in {MATRIX: matrix_table(trial), **tables}.items():
                self._client.log_text(run.id, table, name)
            # The tag comes last: what a crash left out is logged by the next call.
            tags[STAGES_LOGGED] = json.dumps({**logged, **digests})
            tags[TABLES_TAG] = _tables([MATRIX, *tables])
        self._runs.log(run, [], {}, tags)
        self._runs.set_status(run, _STATUS.get(trial.state, "RUNNING" if running else "KILLED"))
        return run.id

    def log_report(self, files: Sequence[Path], note: str = "") -> str:
        """Store the sweep's report (page, figures, folders of tables) in its own run; files of the same name are replaced."""
        run = self._runs.top("report", self.sweep, f"report of {self.sweep}")
        tables = []
        for file in files:
            if file.is_dir():
                self._client.log_artifacts(run.id, str(file), file.name)
                tables += [f"{file.name}/{table.name}" for table in sorted(file.glob("*.json"))]
            else:
                self._client.log_artifact(run.id, str(file))
        self._runs.log(run, [], {}, {NOTE_TAG: note[:LONGEST_TAG], TABLES_TAG: _tables(tables)})
        self._runs.set_status(run, "FINISHED")
        return run.id

    def _trial_run(self, trial: TrialResult) -> Run:
        """The run of a trial: another one where it shows stages beyond the one after which the trial is stopped now.

        MLflow takes no point back, and its table and charts show the last stage that has one. So what was logged before a
        budget was set goes to MLflow's trash, where a person can restore it, and the ledger fills a run with what counts.
        """
        since = trial.cost("seconds") or 0.0
        run = self._runs.top("trial", trial.key, trial.name, since=since)
        if trial.stopped is None or max(map(int, _logged(run)), default=0) <= trial.stopped.stage:
            return run
        self._runs.remove(run)
        fresh = self._runs.top("trial", trial.key, trial.name, since=since)
        self._runs.log(fresh, [], {}, {"lmmcl.replaces": run.id})
        return fresh

    def _points(self, run: Run, stage: StageResult, *, again: bool) -> list[Metric]:
        """The metric points of a stage; of a stage logged before (`again`) those that are new or have changed."""
        values = stage_metrics(stage)
        if not again:
            return _metrics(values, stage.number, run.start)
        points = []
        for name, value in values.items():
            history = self._client.get_metric_history(run.id, name)
            there = [point for point in history if point.step == stage.number]
            latest = max(there, key=lambda point: point.timestamp, default=None)
            if latest is None or latest.value != value:
                after = latest.timestamp + 1 - stage.number if latest else run.start
                points += _metrics({name: value}, stage.number, after)
        return points

    def _log_curve(self, run: Run, stage: StageResult) -> None:
        """The loss curve of a stage, and what was found inside it, in a run nested in its trial, from where it was left."""
        rows = _rows(stage)
        # Probes may be added to a stage that was logged before; a point that is there already adds nothing.
        points = [point for row in stage.probe_curve for point in _row_points(row, run.start, "probe/")]
        points += [point for row in stage.score_curve for point in _row_points(row, run.start)]
        logged = int(run.tags.get(UPDATES_LOGGED, "-1"))
        points += [point for row in rows if row["update"] > logged for point in _row_points(row, run.start)]
        last = max([logged, *(int(row["update"]) for row in rows)])
        points += _metrics(pace_metrics(stage), last, run.start) if last > logged else []
        self._runs.log(run, points, {}, {UPDATES_LOGGED: str(last)})
        self._runs.set_status(run, "FINISHED")


def quiet_client(uri: str, artifact_location: str | None = None) -> MlflowClient:
    """A client that prints nothing, tells nobody, and gives up on a dead server soon; imports MLflow (seconds).

    With `artifact_location` a database file is the store's own (see `prepare_database`).
    """
    for name, value in {
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    }.items():
        os.environ.setdefault(name, value)  # what the user has set stays
    from mlflow import MlflowClient

    # MLflow reads the level when it is imported, and another library may have done that before us.
    logging.getLogger("mlflow").setLevel(os.environ["MLFLOW_LOGGING_LEVEL"])
    file = sqlite_file(uri)
    if file is None:
        return MlflowClient(tracking_uri=with_credentials_apart(uri))
    with alone(uri), no_stray_folder(uri, file):
        prepare_database(file, artifact_location)
        return MlflowClient(tracking_uri=uri)


def _logged(run: Run) -> dict[str, str]:
    """Digests of the stages that a run holds, by number."""
    return json.loads(run.tags.get(STAGES_LOGGED, "{}"))


def _tables(names: Sequence[str]) -> str:
    """The tag from which MLflow's pages know which files are tables, as long as tags may be."""
    listed = list(names)
    while len(value := tables_value(listed)) > LONGEST_TAG:
        listed.pop()
    return value


def _digest(stage: StageResult) -> str:
    updates = [finite(row.get("update")) for row in stage.curve[-1:]]
    curve = [[dict(row) for row in stage.probe_curve]] if stage.probe_curve else []
    curve += [[dict(row) for row in stage.score_curve]] if stage.score_curve else []
    content = [stage_metrics(stage), updates, *curve]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _metrics(values: Mapping[str, float], step: int, start: int) -> list[Metric]:
    """Points whose time follows from run and step alone: MLflow drops a point that it has, so a repeat adds nothing."""
    from mlflow.entities import Metric

    return [Metric(name, value, start + step, step) for name, value in values.items()]


def _rows(stage: StageResult) -> list[Mapping[str, float]]:
    """The points of a loss curve."""
    return [row for row in stage.curve if finite(row.get("update")) is not None]


def _row_points(row: Mapping[str, float], start: int, prefix: str = "") -> list[Metric]:
    values = {metric_name(prefix + name): finite(value) for name, value in row.items() if name not in OFF_THE_CURVE}
    return _metrics({name: value for name, value in values.items() if value is not None}, int(row["update"]), start)
