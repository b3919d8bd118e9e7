"""What a person sees first of a sweep in MLflow: its trials with the two measures, and links to the trade-off and the report."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lmmcl.measures import ABOVE_0_FORGOT, BELOW_0_FORGOT, SHOWN
from lmmcl.private_api import mlflow_private
from lmmcl.private_api.mlflow_private import NOTE_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

VIEW, VIEW_NAME = "lmmcl", "learning against forgetting"
VIEW_TAG = mlflow_private.view_tag(VIEW)
OUR_NOTE = "lmmcl.note"
EARLIER_NOTE = (
    r"Each run is a trial\. Chart: \[held-out forgetting against learning\]\(#/experiments/{id}/runs\?[\w=&]+\)"
    r"(\. Signs: `\w+`(, `\w+`)* below 0 and `\w+`(, `\w+`)* above 0 mean that something was forgotten\.)?"
)
"""All of a note as earlier versions wrote it, without a digest that says so; one with anything more is a person's."""
TRIALS = "tags.`lmmcl.kind` = 'trial'"
MOST_COMPARED = 60
"""Runs in a link: a note may have 5000 characters."""


def shared_view() -> str:
    """The state of MLflow's page of runs as its shared views keep it: trials, the best held-out forgetting first, and a chart
    that draws it against learning."""
    return mlflow_private.trade_off_view(
        VIEW_NAME,
        f"held-out forgetting ({BELOW_0_FORGOT}) against learning",
        x="learning",
        y="held_out_forgetting",
        search=TRIALS,
        section="Trade-off",
    )


def trials_address(experiment_id: str, *, view: bool, chart: bool = False) -> str:
    """The part after the server's address that opens the trials, as a table or as charts; `view` where those are supported."""
    sort = mlflow_private.metric_column("held_out_forgetting")
    kept = VIEW if view else None
    return mlflow_private.runs_address(experiment_id, view=kept, chart=chart, search=TRIALS, sort=sort)


def experiment_note(
    experiment_id: str, *, view: bool, compared: Sequence[str] = (), report: tuple[str, str] | None = None
) -> str:
    """What stands above an experiment (Markdown): links first, since a page shows two lines of it until it is unfolded.

    `compared` are the runs of the trials, `report` experiment and run that hold the report.
    """
    links = [f"[held-out forgetting against learning]({trials_address(experiment_id, view=view, chart=True)})"]
    links += [f"[trials]({trials_address(experiment_id, view=view)})"]
    if 1 < len(compared) <= MOST_COMPARED:
        links.append(f"[compare all]({mlflow_private.comparison_address(experiment_id, compared)})")
    links += [f"[report]({mlflow_private.files_address(*report)})"] if report else []
    below = ", ".join(f"`{name}`" for name in SHOWN if name.endswith("forgetting"))
    above = ", ".join(f"`{name}`" for name in sorted(ABOVE_0_FORGOT))
    signs = f"Signs: {below} below 0 and {above} above 0 mean that something was forgotten."
    return f"{' · '.join(links)}\n\nEach run is a trial. {signs}"


def describe(client: MlflowClient, experiment: Experiment, *, view: bool) -> None:
    """Give an experiment its view (where that is supported) and its note; what a person wrote there stays."""
    if view and experiment.tags.get(VIEW_TAG) != shared_view():
        client.set_experiment_tag(experiment.experiment_id, VIEW_TAG, shared_view())
    note = experiment.tags.get(NOTE_TAG)
    if note is None or _is_earlier(note, experiment):
        write_note(client, experiment, experiment_note(experiment.experiment_id, view=view))


def write_note(client: MlflowClient, experiment: Experiment, note: str) -> None:
    """Replace the note, unless it is a person's."""
    there = experiment.tags.get(NOTE_TAG)
    ours = there is None or _is_earlier(there, experiment) or _digest(there) == experiment.tags.get(OUR_NOTE)
    if ours and there != note:
        client.set_experiment_tag(experiment.experiment_id, NOTE_TAG, note)
        client.set_experiment_tag(experiment.experiment_id, OUR_NOTE, _digest(note))


def _is_earlier(note: str, experiment: Experiment) -> bool:
    return re.fullmatch(EARLIER_NOTE.replace("{id}", re.escape(experiment.experiment_id)), note) is not None


def _digest(note: str) -> str:
    return hashlib.sha256(note.encode()).hexdigest()[:12]
