"""A sweep in MLflow: a view of the ledger that can be filled again at any time.

Experiment = sweep. Each trial is one top-level run: its measures and scores over stages, and its curves of training over
updates. Reports are in an experiment of their own, so that the sweep's tables and charts hold trials and nothing else.
Everything is found by tag before it is made, so logging live, after a resume, or from the ledger is one code and adds
nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lmmcl.private_api.mlflow_private import (
    COLOUR_TAG,
    NOTE_TAG,
    TABLES_TAG,
    forget_artifacts,
    run_colour,
    tables_value,
)
from lmmcl.reports.results import StageResult, TrialResult, finite
from lmmcl.tracking.database import alone, sqlite_file, with_credentials_apart
from lmmcl.tracking.experiments import REPORT_TAGS, REPORTS, find_or_make, sweep_experiment
from lmmcl.tracking.first_screen import TRIALS, describe, experiment_note, trials_address, write_note
from lmmcl.tracking.mlflow_names import curve_values, matrix_table, pace_metrics, stage_metrics, trial_params
from lmmcl.tracking.mlflow_runs import Run, Runs
from lmmcl.tracking.run_documents import stage_updates
from lmmcl.tracking.server_version import are_views_supported
from lmmcl.tracking.sqlite_file import no_stray_folder, prepare_database
from lmmcl.tracking.sweep_identity import SweepIdentity
from lmmcl.weights.freed_memory import collection_paused

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

LONGEST_TAG = 5000
STAGES_LOGGED, UPDATES_LOGGED, NAMED = "lmmcl.stages_logged", "lmmcl.curves_logged", "lmmcl.run_name"
OLD_REPORTS = "tags.`lmmcl.kind` = 'report'"
MATRIX = "matrix.json"
COLOURS = 2000
Extras = Callable[[TrialResult], tuple[Mapping[str, str], Mapping[str, str]]]
"""From a trial to its further tags, and its tables (JSON text) by artifact name."""
_STATUS = {"done": "FINISHED", "stopped": "FINISHED", "failed": "FAILED"}


class Tracker:
    """Logs the trials of one sweep to one MLflow store; idempotent, for one thread.

    `sweep` is the sweep, or what it is called where nobody else's has that name. `artifact_location` is where a new experiment
    keeps its files (None leaves it to the server); `extras` tells what else to log of a trial (see `lmmcl.tracking.extras`).
    Raises what MlflowClient raises when the store cannot be reached, and UserError when the experiment was deleted.
    """

    def __init__(
        self,
        uri: str,
        sweep: str | SweepIdentity,
        artifact_location: str | None = None,
        *,
        extras: Extras | None = None,
    ) -> None:
        self.uri, self._extras = uri, extras or (lambda trial: ({}, {}))
        self.sweep = SweepIdentity(sweep) if isinstance(sweep, str) else sweep
        self._client, self._artifacts = quiet_client(uri, artifact_location), artifact_location
        with alone(self._client.tracking_uri):
            experiment = sweep_experiment(self._client, self.sweep, artifact_location)
            self._views = are_views_supported(uri)
            describe(self._client, experiment, view=self._views)
        self.experiment_id, self.experiment = str(experiment.experiment_id), str(experiment.name)
        self._runs = Runs(self._client, self.experiment_id, self.experiment)
        self._places = {key: place for place, key in enumerate(self.sweep.trials)}
        self._ended: dict[str, tuple[bytes, str]] = {}

    @property
    def address(self) -> str:
        """The part after the server's address that opens the trials."""
        return trials_address(self.experiment_id, view=self._views)

    def log_trial(self, trial: TrialResult, *, running: bool = True) -> str:
        """Log what is not there yet of a trial and return its run id.

        A trial that is neither done nor failed is shown as RUNNING, or as KILLED when it is `running` no longer.
        Of one that has ended a digest and the run id are remembered, not the texts of its run: a sweep may have thousands.
        """
        digests = {str(stage.number): _digest(stage) for stage in trial.stages}
        content = _content(trial, digests)
        if trial.key in self._ended and self._ended[trial.key][0] == content:
            return self._ended[trial.key][1]
        run = self._log_news(trial, digests)
        self._runs.set_status(run, _STATUS.get(trial.state, "RUNNING" if running else "KILLED"))
        if trial.state in _STATUS:
            self._ended[trial.key] = content, run.id
            self._runs.forget(run)
            forget_artifacts(run.id)
        return run.id

    def _log_news(self, trial: TrialResult, digests: Mapping[str, str]) -> Run:
        """Log all of a trial that its run does not show yet but for how it stands; `digests` are of its stages, by number."""
        run = self._trial_run(trial)
        logged = _tag(run, STAGES_LOGGED)
        news = [stage for stage in trial.stages if logged.get(str(stage.number)) != digests[str(stage.number)]]
        points = [point for stage in news for point in self._points(run, stage, again=str(stage.number) in logged)]
        curves, updates = _curves(trial, news, run)
        self._runs.log(run, [*points, *curves], trial_params(trial), {})
        tags = {"lmmcl.state": trial.state, "lmmcl.error": (trial.error or "")[:LONGEST_TAG]}
        tags["lmmcl.stopped"] = json.dumps(trial.stopped.to_dict()) if trial.stopped else ""
        tags |= self._look(run, trial)
        if news:
            more, tables = self._extras(trial)
            tags |= more
            for name, table in {MATRIX: matrix_table(trial), **tables}.items():
                self._client.log_text(run.id, table, name)
            # The tags come last: what a crash left out is logged by the next call.
            tags[STAGES_LOGGED] = json.dumps({**logged, **digests})
            tags[TABLES_TAG] = _tables([MATRIX, *tables])
        self._runs.log(run, [], {}, {**tags, UPDATES_LOGGED: json.dumps(updates)})
        return run

    def log_report(self, files: Sequence[Path], note: str = "") -> str:
        """Store the sweep's report (page, figures, folders of tables) in its own run; files of the same name are replaced."""
        with alone(self._client.tracking_uri):
            experiment = find_or_make(self._client, REPORTS, self._artifacts, REPORT_TAGS)
        reports = Runs(self._client, str(experiment.experiment_id), self.experiment)
        run = reports.top("report", self.experiment_id, self.experiment)
        tables = []
        for file in files:
            if file.is_dir():
                self._client.log_artifacts(run.id, str(file), file.name)
                tables += [f"{file.name}/{table.name}" for table in sorted(file.glob("*.json"))]
            else:
                self._client.log_artifact(run.id, str(file))
        reports.log(run, [], {}, {NOTE_TAG: note[:LONGEST_TAG], TABLES_TAG: _tables(tables)})
        reports.set_status(run, "FINISHED")
        for earlier in self._runs.ids(OLD_REPORTS):  # of a version that kept the report among the trials
            self._client.delete_run(earlier)
        self._link((reports.experiment_id, run.id))
        return run.id

    def _link(self, report: tuple[str, str]) -> None:
        """Have the experiment's note lead to the report, and to MLflow's comparison of the trials."""
        compared = self._runs.ids(TRIALS)
        note = experiment_note(self.experiment_id, view=self._views, compared=compared, report=report)
        write_note(self._client, self._client.get_experiment(self.experiment_id), note)

    def _trial_run(self, trial: TrialResult) -> Run:
        """The run of a trial: another one where it shows stages beyond the one after which the trial is stopped now.

        MLflow takes no point back, and its table and charts show the last stage that has one. So what was logged before a
        budget was set goes to MLflow's trash, where a person can restore it, and the ledger fills a run with what counts.
        """
        since = trial.cost("seconds") or 0.0
        name = self.sweep.run_name(trial.name)
        run = self._runs.top("trial", trial.key, name, since=since)
        if trial.stopped is None or max(map(int, _tag(run, STAGES_LOGGED)), default=0) <= trial.stopped.stage:
            return self._without_nested(run)
        self._runs.remove(run)
        fresh = self._runs.top("trial", trial.key, name, since=since)
        self._runs.log(fresh, [], {}, {"lmmcl.replaces": run.id})
        return fresh

    def _without_nested(self, run: Run) -> Run:
        """The run, whose curves an earlier version kept in nested runs: those go to the trash, and it gets all points again."""
        if STAGES_LOGGED in run.tags and UPDATES_LOGGED not in run.tags:
            for nested in self._runs.nested(run):
                self._client.delete_run(nested.id)
            run.tags[UPDATES_LOGGED] = "{}"
        return run

    def _look(self, run: Run, trial: TrialResult) -> dict[str, str]:
        """Name and colour of a trial's run; those that a person chose stay."""
        name = self.sweep.run_name(trial.name)
        if run.name in (run.tags.get(NAMED), trial.name):
            self._runs.rename(run, name)
        digest = int(hashlib.sha256(trial.key.encode()).hexdigest(), 16)
        colour = run_colour(self._places.get(trial.key, len(self._places) + digest % COLOURS))
        tags = {NAMED: name, "lmmcl.trial": trial.name[:LONGEST_TAG]}
        is_ours = run.tags.get(COLOUR_TAG) in (None, run.tags.get("lmmcl.colour"))
        return {**tags, COLOUR_TAG: colour, "lmmcl.colour": colour} if is_ours else tags

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
    with collection_paused():
        from mlflow import MlflowClient

    # MLflow reads the level when it is imported, and another library may have done that before us.
    logging.getLogger("mlflow").setLevel(os.environ["MLFLOW_LOGGING_LEVEL"])
    file = sqlite_file(uri)
    if file is None:
        return MlflowClient(tracking_uri=with_credentials_apart(uri))
    with alone(uri), no_stray_folder(uri, file):
        prepare_database(file, artifact_location)
        return MlflowClient(tracking_uri=uri)


def _tag(run: Run, name: str) -> dict[str, str]:
    """The JSON object in a tag of a run: digests or updates of the stages that it holds, by number."""
    return json.loads(run.tags.get(name, "{}"))


def _curves(trial: TrialResult, news: Sequence[StageResult], run: Run) -> tuple[list[Metric], dict[str, str]]:
    """The points of all curves that a run does not have, over the updates since the first stage began; and how far it has them.

    Probes and scores inside a stage may be added to one that was logged before; a point that is there already adds nothing.
    """
    logged = _tag(run, UPDATES_LOGGED)
    numbers = {stage.number for stage in news}
    points: list[Metric] = []
    before = 0
    for stage in trial.stages:
        if stage.number in numbers or str(stage.number) not in logged:
            there = int(logged.get(str(stage.number), "-1"))
            for update, values in curve_values(stage, after=there):
                points += _metrics(values, before + update, run.start)
            points += _metrics(pace_metrics(stage), stage.number, run.start)
            updates = [int(last) for row in stage.curve if (last := finite(row.get("update"))) is not None]
            logged[str(stage.number)] = str(max([there, *updates]))
        before += stage_updates(stage)
    return points, logged


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


def _content(trial: TrialResult, digests: Mapping[str, str]) -> bytes:
    """A digest of all that a run shows of a trial; `digests` are of its stages."""
    stopped = trial.stopped.to_dict() if trial.stopped else None
    content = [trial.name, trial.state, trial.error, stopped, trial_params(trial), digests]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()[:16]


def _metrics(values: Mapping[str, float], step: int, start: int) -> list[Metric]:
    """Points whose time follows from run and step alone: MLflow drops a point that it has, so a repeat adds nothing."""
    from mlflow.entities import Metric

    return [Metric(name, value, start + step, step) for name, value in values.items()]
