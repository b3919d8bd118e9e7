"""A sweep as long tables: one row a score, a measure, a probe's value, an update, an answered question."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from lmmcl.config.sweep import Sweep
from lmmcl.ledger import Ledger
from lmmcl.ledger.index.view import RecordView
from lmmcl.reports.collect import score_matrix
from lmmcl.reports.report_records import Reading
from lmmcl.reports.results import StageResult, SweepResults, TrialResult
from lmmcl.search.run_context import RunContext
from lmmcl.steps.trial import Stage, Trial

Row = dict[str, Any]


def score_rows(sweep: Sweep, ledger: Ledger) -> Iterator[Row]:
    """The score of each benchmark after each complete stage, in points, with its 95 % interval over `n` questions: Wilson's for
    right and wrong answers, a bootstrap for other scores (see `ScoreMatrix.score_intervals`)."""
    read = Reading(ledger)
    context = RunContext.resolve(sweep, ledger, read.find)
    for trial in context.sweep.trials:
        stages = context.of(trial).stages
        matrix = score_matrix(trial, read, stages)
        held_out = {benchmark.name for benchmark in trial.held_out}
        for number in matrix.stages:
            intervals = matrix.score_intervals(number)
            for name in matrix.benchmarks:
                low, high = intervals[name]
                yield {
                    "trial": trial.name,
                    "stage": number,
                    "benchmark": name,
                    "score": matrix.score(number, name),
                    "low": low,
                    "high": high,
                    "n": len(matrix.samples(number, name)),
                    "role": "held_out" if name in held_out else "target",
                    "skill": _taught(stages[number]),
                    "trial_key": trial.key,
                    "checkpoint_key": stages[number].checkpoint.key,
                }


def measure_rows(results: SweepResults) -> Iterator[Row]:
    """Every measure that is defined after a stage, in percentage points, with its bootstrap 95 % interval."""
    for trial, stage in _stages(results):
        for name, value in stage.measures.items():
            low, high = stage.intervals.get(name, (None, None))
            yield {**_about(trial, stage), "measure": name, "value": value, "low": low, "high": high, **_keys(trial)}


def probe_rows(results: SweepResults) -> Iterator[Row]:
    """Every value of a probe; `update` is empty for the checkpoint of a stage, and counts updates for probes inside it."""
    for trial, stage in _stages(results):
        for name, value in stage.probes.items():
            yield {**_about(trial, stage), "update": None, "probe": name, "value": value, **_keys(trial)}
        for row in stage.probe_curve:
            for name, value in row.items():
                if name != "update":
                    update = int(row["update"])
                    yield {**_about(trial, stage), "update": update, "probe": name, "value": value, **_keys(trial)}


def curve_rows(results: SweepResults) -> Iterator[Row]:
    """Every logged update of every stage: loss, learning rate, gradient norm, updates per second."""
    for trial, stage in _stages(results):
        for row in stage.curve:
            yield {**_about(trial, stage), **row, **_keys(trial)}


def sample_rows(
    sweep: Sweep,
    ledger: Ledger,
    *,
    benchmarks: Collection[str] | None = None,
    trials: Collection[str] | None = None,
    stages: Collection[int] | None = None,
) -> Iterator[Row]:
    """Every answered question, of some `benchmarks`, `trials` (keys) and `stages` (None: of all); the score is in [0, 1].

    What the stages of several trials share is read once. Raises DamagedError for a file that is not what was recorded.
    """
    context, view, kept = RunContext.resolve(sweep, ledger), RecordView(ledger), dict[str, list[Row]]()
    for trial in context.sweep.trials:
        if trials is not None and trial.key not in trials:
            continue
        for stage in context.of(trial).stages:
            if stages is None or stage.number in stages:
                yield from _answers(trial, stage, view, benchmarks, kept)


def _answers(
    trial: Trial, stage: Stage, view: RecordView, benchmarks: Collection[str] | None, kept: dict[str, list[Row]]
) -> Iterator[Row]:
    for step in (*stage.evaluations, *stage.wordings):
        if benchmarks is not None and step.benchmark.name not in benchmarks:
            continue
        if step.path not in kept:
            kept[step.path] = view.read_lines(step.path, "samples.jsonl")
        for row in kept[step.path]:
            yield {
                "trial": trial.name,
                "stage": stage.number,
                "benchmark": step.benchmark.name,
                **{name: row[name] for name in ("id", "question", "references", "prediction", "score", "metadata")},
                "trial_key": trial.key,
                "checkpoint_key": stage.checkpoint.key,
            }


def _stages(results: SweepResults) -> Iterator[tuple[TrialResult, StageResult]]:
    return ((trial, stage) for trial in results.trials for stage in trial.stages)


def _about(trial: TrialResult, stage: StageResult) -> Row:
    return {"trial": trial.name, "stage": stage.number, "skill": stage.skill}


def _keys(trial: TrialResult) -> Row:
    return {"trial_key": trial.key}


def _taught(stage: Stage) -> str | None:
    return stage.skill.name if stage.skill else None
