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
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lmmcl.errors import UserError
from lmmcl.reports.results import StageResult, TrialResult, finite
from lmmcl.runner.tracking_extras import VIEW_TAG, experiment_note, shared_view
from lmmcl.runner.tracking_names import batches, matrix_table, metric_name, pace_metrics, stage_metrics, trial_params
from lmmcl.runner.tracking_store import sqlite_file

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, Run, RunTag

LONGEST_TAG = 5000
NOTE_TAG = "mlflow.note.content"
STAGES_LOGGED, UPDATES_LOGGED = "lmmcl.stages_logged", "lmmcl.updates_logged"
MATRIX = "matrix.json"
OFF_THE_CURVE = ("update", "updates_per_second")  # the x axis; and what says nothing of learning but costs a third more
EXPERIMENT_TAGS = {"lmmcl.kind": "sweep", "mlflow.experimentKind": "custom_model_development"}  # spares a question
Extras = Callable[[TrialResult], tuple[Mapping[str, str], Mapping[str, str]]]
"""From a trial to its further tags, and its tables (JSON text) by artifact name."""
_STATUS = {"done": "FINISHED", "stopped": "FINISHED", "failed": "FAILED"}


@dataclass
class _Run:
    """What is known of a run without asking the server again."""

    id: str
    start: int
    status: str
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    nested: dict[str, _Run] | None = None


class Tracker:
    """Logs the trials of one sweep to one MLflow store; idempotent, for one thread.

    `artifact_location` is where a new experiment keeps its files (None leaves it to the server); `extras` tells what else to
    log of a trial (see `lmmcl.runner.tracking_extras`). Raises what
    MlflowClient raises when the store cannot be reached, and UserError when the experiment was deleted.
    """

    def __init__(
        self, uri: str, sweep: str, artifact_location: str | None = None, *, extras: Extras | None = None
    ) -> None:
        self.uri, self.sweep, self._extras = uri, sweep, extras or (lambda trial: ({}, {}))
        self._client = quiet_client(uri)
        self.experiment_id = self._experiment(artifact_location)
        self._runs: dict[tuple[str, str], _Run] = {}

    def log_trial(self, trial: TrialResult, *, running: bool = True) -> str:
        """Log what is not there yet of a trial and return its run id.

        A trial that is neither done nor failed is shown as RUNNING, or as KILLED when it is `running` no longer.
        """
        run = self._run("trial", trial.key, trial.name, since=trial.cost("seconds") or 0.0)
        logged = json.loads(run.tags.get(STAGES_LOGGED, "{}"))
        digests = {str(stage.number): _digest(stage) for stage in trial.stages}
        news = [stage for stage in trial.stages if logged.get(str(stage.number)) != digests[str(stage.number)]]
        points = [point for stage in news for point in self._points(run, stage, again=str(stage.number) in logged)]
        self._log(run, points, trial_params(trial), {})
        for stage in news:
            self._log_curve(run, trial, stage)
        tags = {"lmmcl.state": trial.state, "lmmcl.error": (trial.error or "")[:LONGEST_TAG]}
        tags["lmmcl.stopped"] = json.dumps(trial.stopped.to_dict()) if trial.stopped else ""
        if news:
            more, tables = self._extras(trial)
            tags |= more
            for name, table in {MATRIX: matrix_table(trial), **tables}.items():
                self._client.log_text(run.id, table, name)
            # The tag comes last: what a crash left out is logged by the next call.
            tags[STAGES_LOGGED] = json.dumps({**logged, **digests})
            tags["mlflow.loggedArtifacts"] = _tables([MATRIX, *tables])
        self._log(run, [], {}, tags)
        self._set_status(run, _STATUS.get(trial.state, "RUNNING" if running else "KILLED"))
        return run.id

    def log_files(self, trial: TrialResult, files: Mapping[str, Path]) -> None:
        """Store files (samples, figures) with a trial; the keys are folders among its artifacts."""
        run = self._run("trial", trial.key, trial.name)
        for folder, file in files.items():
            self._client.log_artifact(run.id, str(file), folder)

    def log_report(self, files: Sequence[Path], note: str = "") -> str:
        """Store the sweep's report (page, figures, folders of tables) in its own run; files of the same name are replaced."""
        run = self._run("report", self.sweep, f"report of {self.sweep}")
        tables = []
        for file in files:
            if file.is_dir():
                self._client.log_artifacts(run.id, str(file), file.name)
                tables += [f"{file.name}/{table.name}" for table in sorted(file.glob("*.json"))]
            else:
                self._client.log_artifact(run.id, str(file))
        self._log(run, [], {}, {NOTE_TAG: note[:LONGEST_TAG], "mlflow.loggedArtifacts": _tables(tables)})
        self._set_status(run, "FINISHED")
        return run.id

    def _experiment(self, artifact_location: str | None) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(self.sweep)
        if found is None:
            try:
                made = self._client.create_experiment(self.sweep, artifact_location, tags=EXPERIMENT_TAGS)
                found = self._client.get_experiment(made)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self._client.get_experiment_by_name(self.sweep)  # another process was first
        if found is None or found.lifecycle_stage != "active":
            raise UserError(
                f"the MLflow experiment {self.sweep!r} at {self.uri} was deleted; restore it "
                f"(mlflow experiments restore -x {found.experiment_id if found else 'ID'}) or empty the trash (mlflow gc)"
            )
        if found.tags.get(VIEW_TAG) != shared_view():
            self._client.set_experiment_tag(found.experiment_id, VIEW_TAG, shared_view())
        if NOTE_TAG not in found.tags:  # what a person wrote there stays
            self._client.set_experiment_tag(found.experiment_id, NOTE_TAG, experiment_note(found.experiment_id))
        return str(found.experiment_id)

    def _run(self, kind: str, key: str, name: str, *, since: float = 0.0) -> _Run:
        """The top-level run of this kind and key: remembered, or found by tag, or made (`since` seconds ago)."""
        key = metric_name(key)  # a quote would end the query's string
        if (kind, key) not in self._runs:
            tag = {"trial": "lmmcl.trial_key", "report": "lmmcl.report_key"}[kind]
            found = self._search(f"tags.`{tag}` = '{key}' and tags.`lmmcl.kind` = '{kind}'", 1)
            start = int((time.time() - since) * 1000)
            self._runs[kind, key] = found[0] if found else self._create(name, {"lmmcl.kind": kind, tag: key}, start)
        return self._runs[kind, key]

    def _nested_run(self, parent: _Run, trial: TrialResult, stage: StageResult) -> _Run:
        """The run of a stage. All runs of the trial are asked for at once, and not at all when it was made just now."""
        if parent.nested is None:
            found = self._search(f"tags.`mlflow.parentRunId` = '{parent.id}'", 1000)
            parent.nested = {
                run.tags["lmmcl.stage_key"]: run for run in reversed(found) if "lmmcl.stage_key" in run.tags
            }
        key = f"{trial.key}/{stage.number}/{stage.checkpoint_key}"
        if key not in parent.nested:
            tags = {"mlflow.parentRunId": parent.id, "lmmcl.kind": "stage", "lmmcl.stage_key": key}
            tags |= {"lmmcl.trial_key": trial.key, "lmmcl.stage": str(stage.number)}
            tags["lmmcl.checkpoint_key"] = stage.checkpoint_key  # the same in every trial that shares the stage
            name = f"{stage.number} {stage.skill or ''}".strip()
            parent.nested[key] = self._create(name, tags, int(time.time() * 1000))
        return parent.nested[key]

    def _search(self, query: str, most: int) -> list[_Run]:
        found = self._client.search_runs([self.experiment_id], query, max_results=most, order_by=["start_time ASC"])
        return [_remember(run) for run in found]

    def _create(self, name: str, tags: Mapping[str, str], start: int) -> _Run:
        made = self._client.create_run(self.experiment_id, start, {"lmmcl.sweep": self.sweep, **tags}, name)
        run = _remember(made)
        run.nested = {}
        return run

    def _points(self, run: _Run, stage: StageResult, *, again: bool) -> list[Metric]:
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

    def _log_curve(self, parent: _Run, trial: TrialResult, stage: StageResult) -> None:
        """The loss curve of a stage, and what probes found inside it, in a run nested in its trial, from where it was left."""
        rows = [row for row in stage.curve if finite(row.get("update")) is not None]
        if not rows and not stage.probe_curve:
            return
        run = self._nested_run(parent, trial, stage)
        # Probes may be added to a stage that was logged before; a point that is there already adds nothing.
        points = [point for row in stage.probe_curve for point in _row_points(row, run.start, "probe/")]
        logged = int(run.tags.get(UPDATES_LOGGED, "-1"))
        points += [point for row in rows if row["update"] > logged for point in _row_points(row, run.start)]
        last = max([logged, *(int(row["update"]) for row in rows)])
        points += _metrics(pace_metrics(stage), last, run.start) if last > logged else []
        self._log(run, points, {}, {UPDATES_LOGGED: str(last)})
        self._set_status(run, "FINISHED")

    def _log(self, run: _Run, points: Sequence[Metric], params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Log in as few calls as the limits allow. A parameter that is there already is left as it is."""
        from mlflow.entities import Param, RunTag

        fresh: list[Param] = [Param(name, value) for name, value in params.items() if name not in run.params]
        changed: list[RunTag] = [RunTag(name, value) for name, value in tags.items() if run.tags.get(name, "") != value]
        for some_points, some_params, some_tags in batches(points, fresh, changed):
            self._client.log_batch(run.id, metrics=some_points, params=some_params, tags=some_tags)
        run.params |= {param.key: param.value for param in fresh}
        run.tags |= {tag.key: tag.value for tag in changed}

    def _set_status(self, run: _Run, status: str) -> None:
        if run.status == status:
            return
        if status == "RUNNING":
            self._client.update_run(run.id, status)
        else:
            self._client.set_terminated(run.id, status)
        run.status = status


def quiet_client(uri: str) -> MlflowClient:
    """A client that prints nothing, tells nobody, and gives up on a dead server soon; imports MLflow (seconds)."""
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
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri)


def _tables(names: Sequence[str]) -> str:
    """The tag from which MLflow's pages know which files are tables, as long as tags may be."""
    some = [json.dumps({"path": name, "type": "table"}) for name in names]
    while sum(map(len, some)) + 2 * len(some) > LONGEST_TAG:
        some.pop()
    return f"[{', '.join(some)}]"


def _digest(stage: StageResult) -> str:
    updates = [finite(row.get("update")) for row in stage.curve[-1:]]
    curve = [[dict(row) for row in stage.probe_curve]] if stage.probe_curve else []
    said = [stage_metrics(stage), updates, *curve]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]


def _metrics(values: Mapping[str, float], step: int, start: int) -> list[Metric]:
    """Points whose time follows from run and step alone: MLflow drops a point that it has, so a repeat adds nothing."""
    from mlflow.entities import Metric

    return [Metric(name, value, start + step, step) for name, value in values.items()]


def _row_points(row: Mapping[str, float], start: int, prefix: str = "") -> list[Metric]:
    values = {metric_name(prefix + name): finite(value) for name, value in row.items() if name not in OFF_THE_CURVE}
    return _metrics({name: value for name, value in values.items() if value is not None}, int(row["update"]), start)


def _remember(run: Run) -> _Run:
    return _Run(run.info.run_id, run.info.start_time, run.info.status, dict(run.data.params), dict(run.data.tags))
