"""What a plan and a run say of the data of their trials before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lmmcl.config.overlaps import Overlap, mixed_in
from lmmcl.planning.inputs import tasks_of
from lmmcl.steps.trial import Trial


def data_notes(trial: Trial) -> Iterator[str]:
    """What is done to images before a model is shown them, of every file that is taught, asked or mixed in in a trial."""
    for data in (*tasks_of(trial), *mixed_in(trial)):
        for note in data.notes():
            yield f"{data.name}: {note}"


def overlap_notes(overlaps: Iterable[Overlap]) -> Iterator[str]:
    """The overlaps that do not stop a run: of skills with one another, and those that the sweep allows."""
    return (str(overlap) for overlap in overlaps if not overlap.refused)
