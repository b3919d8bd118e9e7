"""The runs of one sweep's experiment in MLflow: found by tag before they are made, remembered, and written in few calls."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lmmcl.errors import UserError
from lmmcl.private_api.mlflow_private import NOTE_TAG
from lmmcl.reports.results import StageResult, TrialResult
from lmmcl.tracking.database import alone
from lmmcl.tracking.extras import VIEW_TAG, experiment_note, shared_view
from lmmcl.tracking.mlflow_names import batches, metric_name

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Metric, Param, RunTag
    from mlflow.entities import Run as MlflowRun

KEY_TAGS = {"trial": "lmmcl.trial_key", "report": "lmmcl.report_key"}
EXPERIMENT_TAGS = {"lmmcl.kind": "sweep", "mlflow.experimentKind": "custom_model_development"}  # spares a question
MOST_NESTED = 1000


@dataclass
class Run:
    """What is known of a run without asking the server again."""

    id: str
    start: int
    status: str
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    nested: dict[str, Run] = field(default_factory=dict)


class Runs:
    """The runs of the experiment that is called like the sweep, for one thread.

    `artifact_location` is where a new experiment keeps its files (None leaves it to the server). Raises UserError when the
    experiment was deleted.
    """

    def __init__(self, client: MlflowClient, sweep: str, artifact_location: str | None) -> None:
        self._client, self._sweep = client, sweep
        experiment = self._experiment(artifact_location)
        self.experiment_id = str(experiment.experiment_id)
        if experiment.tags.get(VIEW_TAG) != shared_view():
            client.set_experiment_tag(self.experiment_id, VIEW_TAG, shared_view())
        if NOTE_TAG not in experiment.tags:  # what a person wrote there stays
            client.set_experiment_tag(self.experiment_id, NOTE_TAG, experiment_note(self.experiment_id))
        self._known: dict[tuple[str, str], Run] = {}

    def top(self, kind: str, key: str, name: str, *, since: float = 0.0) -> Run:
        """The top-level run of this kind and key: remembered, or found by tag, or made (`since` seconds ago)."""
        key = metric_name(key)  # a quote would end the query's string
        if (kind, key) not in self._known:
            tag = KEY_TAGS[kind]
            with alone(self._client.tracking_uri):  # two runs that share a store log the same trials
                runs = self._search(f"tags.`{tag}` = '{key}' and tags.`lmmcl.kind` = '{kind}'", 1)
                start = int((time.time() - since) * 1000)
                self._known[kind, key] = runs[0] if runs else self._create(name, {"lmmcl.kind": kind, tag: key}, start)
        return self._known[kind, key]

    def nested(self, parent: Run, trial: TrialResult, stages: Sequence[StageResult]) -> list[Run]:
        """The runs of stages, made where they are not there. Those of the trial are asked for at once, when one is not known."""
        keys = [f"{trial.key}/{stage.number}/{stage.checkpoint_key}" for stage in stages]
        if set(keys) - parent.nested.keys():
            with alone(self._client.tracking_uri):
                runs = self._search(f"tags.`mlflow.parentRunId` = '{parent.id}'", MOST_NESTED)
                there = {run.tags["lmmcl.stage_key"]: run for run in reversed(runs) if "lmmcl.stage_key" in run.tags}
                parent.nested = {**there, **parent.nested}
                for key, stage in zip(keys, stages, strict=True):
                    if key not in parent.nested:
                        parent.nested[key] = self._make_nested(parent, key, trial, stage)
        return [parent.nested[key] for key in keys]

    def _make_nested(self, parent: Run, key: str, trial: TrialResult, stage: StageResult) -> Run:
        tags = {"mlflow.parentRunId": parent.id, "lmmcl.kind": "stage", "lmmcl.stage_key": key}
        tags |= {"lmmcl.trial_key": trial.key, "lmmcl.stage": str(stage.number)}
        tags["lmmcl.checkpoint_key"] = stage.checkpoint_key  # the same in every trial that shares the stage
        return self._create(f"{stage.number} {stage.skill or ''}".strip(), tags, int(time.time() * 1000))

    def remove(self, run: Run) -> None:
        """Move a run, after those nested in it, to MLflow's trash, from which a person may restore it."""
        for one in [*self._search(f"tags.`mlflow.parentRunId` = '{run.id}'", MOST_NESTED), run]:
            self._client.delete_run(one.id)
        self._known = {key: known for key, known in self._known.items() if known.id != run.id}

    def log(self, run: Run, points: Sequence[Metric], params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Log in as few calls as the limits allow. A parameter that is there already is left as it is."""
        from mlflow.entities import Param, RunTag

        fresh: list[Param] = [Param(name, value) for name, value in params.items() if name not in run.params]
        changed: list[RunTag] = [RunTag(name, value) for name, value in tags.items() if run.tags.get(name, "") != value]
        for some_points, some_params, some_tags in batches(points, fresh, changed):
            self._client.log_batch(run.id, metrics=some_points, params=some_params, tags=some_tags)
        run.params |= {param.key: param.value for param in fresh}
        run.tags |= {tag.key: tag.value for tag in changed}

    def set_status(self, run: Run, status: str) -> None:
        """Show a run as RUNNING, FINISHED, FAILED or KILLED."""
        if run.status == status:
            return
        if status == "RUNNING":
            self._client.update_run(run.id, status)
        else:
            self._client.set_terminated(run.id, status)
        run.status = status

    def _experiment(self, artifact_location: str | None) -> Experiment:
        from mlflow.exceptions import MlflowException

        experiment = self._client.get_experiment_by_name(self._sweep)
        if experiment is None:
            try:
                experiment_id = self._client.create_experiment(self._sweep, artifact_location, tags=EXPERIMENT_TAGS)
                experiment = self._client.get_experiment(experiment_id)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                experiment = self._client.get_experiment_by_name(self._sweep)  # another process was first
        if experiment is None or experiment.lifecycle_stage != "active":
            raise UserError(
                f"the MLflow experiment {self._sweep!r} at {self._client.tracking_uri} was deleted; restore it "
                f"(mlflow experiments restore -x {experiment.experiment_id if experiment else 'ID'}) or empty the trash (mlflow gc)"
            )
        return experiment

    def _search(self, query: str, most: int) -> list[Run]:
        runs = self._client.search_runs([self.experiment_id], query, max_results=most, order_by=["start_time ASC"])
        return [_remember(run) for run in runs]

    def _create(self, name: str, tags: Mapping[str, str], start: int) -> Run:
        created = self._client.create_run(self.experiment_id, start, {"lmmcl.sweep": self._sweep, **tags}, name)
        return _remember(created)


def _remember(run: MlflowRun) -> Run:
    return Run(run.info.run_id, run.info.start_time, run.info.status, dict(run.data.params), dict(run.data.tags))
