"""The experiments of MLflow that hold a sweep: its own, told apart from those of other sweeps of the name, and one for reports."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lmmcl.errors import UserError
from lmmcl.tracking.sweep_identity import ORIGIN_TAG, SweepIdentity, numbered

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

_MACHINE_LEARNING = {"mlflow.experimentKind": "custom_model_development"}  # spares a question
SWEEP_TAGS = {"lmmcl.kind": "sweep", **_MACHINE_LEARNING}
REPORT_TAGS = {"lmmcl.kind": "reports", **_MACHINE_LEARNING}
REPORTS = "lmmcl reports"
"""The experiment with one run for each sweep: among the trials, reports would be in every table and chart."""
PAGE = 1000


def sweep_experiment(client: MlflowClient, sweep: SweepIdentity, artifact_location: str | None) -> Experiment:
    """The experiment of this sweep, made where there is none: called like it, with a number where that is another sweep's."""
    for name in numbered(sweep.name):
        experiment = find_or_make(client, name, artifact_location, SWEEP_TAGS)
        origin = experiment.tags.get(ORIGIN_TAG)
        if sweep.is_from(origin) or _holds(client, experiment, sweep):
            if sweep.origin and origin != sweep.origin:
                client.set_experiment_tag(experiment.experiment_id, ORIGIN_TAG, sweep.origin)
            return experiment
    raise AssertionError("numbers do not end")


def find_or_make(
    client: MlflowClient, name: str, artifact_location: str | None, tags: dict[str, str] | None = None
) -> Experiment:
    """The experiment of this name. Raises UserError when it was deleted."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            experiment = client.get_experiment(client.create_experiment(name, artifact_location, tags=tags))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)  # another process was first
    if experiment is None or experiment.lifecycle_stage != "active":
        raise UserError(
            f"the MLflow experiment {name!r} at {client.tracking_uri} was deleted; restore it "
            f"(mlflow experiments restore -x {experiment.experiment_id if experiment else 'ID'}) or empty the trash (mlflow gc)"
        )
    return experiment


def _holds(client: MlflowClient, experiment: Experiment, sweep: SweepIdentity) -> bool:
    """Whether a trial of the sweep is in the experiment, or no trial at all."""
    keys = set(_trial_keys(client, experiment))
    return not keys or sweep.shares_a_trial(keys)


def _trial_keys(client: MlflowClient, experiment: Experiment) -> Iterator[str]:
    token = None
    while True:
        page = client.search_runs(
            [experiment.experiment_id], "tags.`lmmcl.kind` = 'trial'", max_results=PAGE, page_token=token
        )
        yield from (run.data.tags["lmmcl.trial_key"] for run in page)
        token = page.token
        if not token:
            return
