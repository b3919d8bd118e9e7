"""The walk: a trial asks for the scores of its stages, and asking brings the checkpoints into being."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, Protocol

from lmmcl.config.search_settings import budget_broken
from lmmcl.evaluation.matrix import ScoreMatrix
from lmmcl.ledger import Record
from lmmcl.steps import Checkpoint, ScoringStep
from lmmcl.steps.trial import Trial


class Steps(Protocol):
    """Where records come from: one process (`StepScheduler`) or a cluster (`RemoteSteps`)."""

    def ensure_all(self, steps: Sequence[ScoringStep]) -> list[Record]:
        """The records of the scoring steps of one checkpoint, computed where they are missing."""

    def prefetch(self, step: Checkpoint) -> None:
        """Have a checkpoint computed where there is room, and do not wait for it."""


class RunListener(Protocol):
    """Gets the events of a running sweep; never blocks it."""

    def stage_done(self, trial: Trial, report: Mapping[str, Any]) -> None:
        """A stage of `trial` has all its scores."""

    def trial_failed(self, trial: Trial, why: str, details: str) -> None:
        """`trial` ended before its last stage; `details` is the traceback."""

    def trial_opened(self, trial: Trial) -> None:
        """A search has proposed `trial`."""

    def phase(self, doing: str) -> None:
        """What the run itself is doing before anything is computed."""

    def note(self, text: str) -> None:
        """Something that a person should know, and that ends nothing."""

    def begin(self) -> None:
        """All is checked; from here on steps are computed."""

    def running(self, notes: Mapping[str, Mapping[str, Any]]) -> None:
        """What is running now: notes by step key."""


def new_matrix(trial: Trial) -> ScoreMatrix:
    """An empty matrix with the columns of `trial`."""
    return ScoreMatrix(trial.targets, [benchmark.name for benchmark in trial.held_out])


def sample_scores(records: Sequence[Record]) -> dict[str, list[float]]:
    """Per-sample scores in [0, 1] by benchmark; records of probes have none."""
    return {record["label"]: record["sample_scores"] for record in records if record["kind"] == "evaluate"}


def walk(trial: Trial, steps: Steps, *, ahead: bool = True) -> Iterator[dict[str, Any]]:
    """Walk the stages of `trial`, one report each: the stage's number and the measures so far.

    A stage that breaks the trial's budget is the last, and its report says so under `stopped`. `ahead` lets the next stage
    train while this one is evaluated: not where scores may end the trial.
    """
    matrix = new_matrix(trial)
    for stage, following in zip_longest(trial.stages, trial.stages[1:]):
        if ahead and following and not trial.stop:
            steps.prefetch(following.checkpoint)
        records = steps.ensure_all(stage.asked)
        matrix.add(stage.number, sample_scores(records[: len(stage.evaluations)]))
        for moment in stage.moments:
            steps.ensure_all(moment.asked)
        measures = matrix.summary()
        report = {"stage": stage.number, **measures}
        stopped = budget_broken(trial.stop, stage.number, measures) if following else None
        yield {**report, "stopped": stopped.to_dict()} if stopped else report
        if stopped:
            return


def run_trial(trial: Trial, steps: Steps, report: Callable[[dict[str, Any]], None], *, ahead: bool = True) -> None:
    """Walk `trial` to its end (see `walk`); `report` is called after each stage."""
    for result in walk(trial, steps, ahead=ahead):
        report(result)
