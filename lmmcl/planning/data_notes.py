"""What a plan and a run say of the data of their trials before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator

from lmmcl.planning.inputs import tasks_of
from lmmcl.steps.trial import Trial


def data_notes(trial: Trial) -> Iterator[str]:
    """What is done to images before a model is shown them, of every file that is taught or asked in a trial."""
    for task in tasks_of(trial):
        for note in task.notes():
            yield f"{task.name}: {note}"
