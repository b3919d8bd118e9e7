"""The walk: a trial asks for the scores of its stages, and asking brings the checkpoints into being."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any, Protocol

from lmmcl.evaluation.matrix import ScoreMatrix
from lmmcl.ledger import Record
from lmmcl.spec.steps import Asked, Checkpoint
from lmmcl.spec.trial import Trial


class Steps(Protocol):
    """Where records come from: one process (`InlineSteps`) or a cluster (`RemoteSteps`)."""

    def ensure_all(self, steps: Sequence[Asked]) -> list[Record]:
        """The records of what is asked of one checkpoint, computed where they are missing."""

    def begin(self, step: Checkpoint) -> None:
        """Have a checkpoint computed where there is room, and do not wait for it."""


def new_matrix(trial: Trial) -> ScoreMatrix:
    """An empty matrix with the columns of `trial`."""
    return ScoreMatrix([skill.benchmark.name for skill in trial.skills], [each.name for each in trial.held_out])


def sample_scores(records: Sequence[Record]) -> dict[str, list[float]]:
    """Per-sample scores in [0, 1] by benchmark; records of probes have none."""
    return {record["label"]: record["sample_scores"] for record in records if record["kind"] == "evaluate"}


def run_trial(
    trial: Trial, steps: Steps, report: Callable[[dict[str, Any]], None], *, ahead: bool = True
) -> ScoreMatrix:
    """Walk the stages of `trial`; `report` is called after each with the stage's number and the measures so far.

    `ahead` lets the next stage train while this one is evaluated: False where the scores may end the trial.
    """
    matrix = new_matrix(trial)
    for stage, following in zip_longest(trial.stages, trial.stages[1:]):
        if ahead and following:
            steps.begin(following.checkpoint)
        matrix.add(stage.number, sample_scores(steps.ensure_all(stage.asked)))
        report({"stage": stage.number, **matrix.summary()})
    return matrix
