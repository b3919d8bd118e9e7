"""From the ledger to results: what a report is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from lmmcl.config.overlaps import describe_overlaps
from lmmcl.config.sweep import Sweep
from lmmcl.errors import UserError
from lmmcl.evaluation.matrix import MomentScores, ScoreMatrix, resample_together
from lmmcl.ledger import Ledger
from lmmcl.ledger.index.view import RecordView, SingleReads
from lmmcl.ledger.provenance import report_provenance
from lmmcl.reports.failures import kept_failures
from lmmcl.reports.image_text_grid import measure_cells
from lmmcl.reports.report_records import Reading
from lmmcl.reports.results import MEASURES, RESAMPLED, Interval, StageResult, State, SweepResults, TrialResult
from lmmcl.reports.tables.generation_budget import budget_of
from lmmcl.search.progress import SweepProgress, TrialProgress
from lmmcl.search.run_context import RunContext
from lmmcl.search.search_state import search_states
from lmmcl.steps import Finetune, ProbeStep
from lmmcl.steps.trial import SnapshotPoint, Stage, Trial
from lmmcl.tasks.wordings import WordedBenchmark

T = TypeVar("T")
AT_ONCE = 8
"""Trials whose draws are made together."""
COSTS = ("trained_parameters", "trained_bytes", "checkpoint_bytes", "seconds", "peak_memory_bytes")


def collect(sweep: Sweep, ledger: Ledger, failures: Mapping[str, str] | None = None) -> SweepResults:
    """All trials of `sweep`, and those that its searches proposed, as far as the ledger holds them.

    `failures` are reasons by trial key, without them those that the last run kept; `wanted` counts the steps that these
    trials walk.
    """
    return collect_results(RunContext.resolve(sweep, ledger), failures)


def collect_results(
    context: RunContext,
    failures: Mapping[str, str] | None = None,
    *,
    last_only: bool = False,
    shown_only: bool = False,
    view: RecordView | None = None,
) -> SweepResults:
    """`collect`, of a sweep that is resolved already.

    With `last_only` a stage before the last has no intervals and cells: a table does not show them, and they take the most time;
    with `shown_only` other measures than those of tables and pages have none.
    `view` is of the same ledger, where somebody has looked into it already.
    """
    sweep, ledger, read = context.sweep, context.ledger, Reading(context.ledger, view)
    if failures is None:
        failures = {key: failure.why for key, failure in kept_failures(ledger, sweep.trials).items()}
    context = context.reading(read.find)
    wanted = context.steps()
    read.prefetch(wanted.values())
    walks = context.progress
    trials: list[TrialResult] = []
    for start in range(0, len(sweep.trials), AT_ONCE):
        asked = [walks.of(trial) for trial in sweep.trials[start : start + AT_ONCE]]
        scored = [(walk, score_matrix(walk.trial, read, walk.stages)) for walk in asked]
        resample_together([matrix for _, matrix in scored])
        while scored:  # the draws of a trial are large, and not needed after it
            walk, matrix = scored.pop(0)
            error = failures.get(walk.trial.key)
            trials.append(_result(walk, matrix, read, error, last_only=last_only, shown_only=shown_only))
    recorded, notes = read.recorded(wanted.values())
    return SweepResults(
        name=sweep.name,
        trials=trials,
        file=sweep.file,
        provenance=report_provenance(),
        wanted=len(wanted),
        recorded=recorded,
        searches=search_states(sweep, ledger),
        notes=[*_overrides(sweep), *describe_overlaps(sweep), *notes],
    )


def _overrides(sweep: Sweep) -> list[str]:
    """What depends on the skill or the stage, in a line: names of trials do not tell it."""
    lines = sweep.stage_overrides.describe()
    return [f"settings that differ by skill or stage: {'; '.join(lines)}"] if lines else []


def score_matrix(trial: Trial, ledger: Ledger | Reading, stages: Sequence[Stage] | None = None) -> ScoreMatrix:
    """The scores of a trial (or of some `stages` of it), question by question, up to the first stage that lacks one."""
    matrix = ScoreMatrix(trial.targets, [benchmark.name for benchmark in trial.held_out])
    for stage in trial.stages if stages is None else stages:
        scores = {
            step.benchmark.name: record["sample_scores"]
            for step in stage.evaluations
            if (record := ledger.find(step)) is not None
        }
        if len(scores) < len(stage.evaluations):
            break
        try:
            matrix.add(stage.number, scores, stage.checkpoint.key)
        except ValueError as error:  # such as another number of questions than before
            why = f"{error}; delete the record of that evaluation ({stage.checkpoint.path}) to have it computed again"
            raise UserError(why, place=trial.name) from error
    return matrix


def trial_result(
    trial: Trial,
    ledger: Ledger | Reading,
    walks: SweepProgress | None = None,
    *,
    error: str | None = None,
    last_only: bool = False,
    shown_only: bool = False,
) -> TrialResult:
    """One trial: its stages up to the first that lacks a score, or that ended it; `walks` are those of its sweep.

    With `last_only` the last stage alone has intervals and cells, with `shown_only` the measures of tables and pages alone.
    """
    read = ledger if isinstance(ledger, Reading) else Reading(ledger, SingleReads(ledger))
    walk = (walks or SweepProgress(read.find)).of(trial)
    matrix = score_matrix(trial, read, walk.stages)
    return _result(walk, matrix, read, error, last_only=last_only, shown_only=shown_only)


def _result(
    walk: TrialProgress, matrix: ScoreMatrix, read: Reading, error: str | None, *, last_only: bool, shown_only: bool
) -> TrialResult:
    trial, last = walk.trial, matrix.stages[-1:]
    names = MEASURES if shown_only else None
    intervals = matrix.all_intervals(last if last_only else matrix.stages, names=names)
    stages = [_stage_result(walk, number, matrix, read, intervals.get(number)) for number in matrix.stages]
    finished = len(stages) == len(walk.stages) and not (error and _lacks_probes(walk, read))
    state: State = ("stopped" if walk.stopped else "done") if finished else "failed" if error else "partial"
    return TrialResult(
        key=trial.key,
        name=trial.name,
        axes=trial.axes,
        skills=[skill.name for skill in trial.skills],
        held_out=[benchmark.name for benchmark in trial.held_out],
        stages=stages,
        state=state,
        error=error if state == "failed" else None,
        draws=matrix.draws(names=RESAMPLED) if stages else {},
        stopped=walk.stopped,
        bound=trial.bound,
    )


def _stage_result(
    walk: TrialProgress, number: int, matrix: ScoreMatrix, read: Reading, intervals: Mapping[str, Interval] | None
) -> StageResult:
    stage = walk.stages[number]
    trained = stage.tuned
    asked = [step.benchmark.name for step in stage.evaluations]
    moments = _moment_scores(walk, number, read)
    fractional = [] if intervals is None else matrix.fractional()
    return StageResult(
        number=stage.number,
        skill=stage.skill.name if stage.skill else None,
        checkpoint_key=stage.checkpoint.key,
        scores={name: matrix.score(stage.number, name) for name in asked},
        sample_counts={name: matrix.count(stage.number, name) for name in asked},
        measures=matrix.summary(stage.number),
        intervals=intervals or {},
        curve=read.curve(trained) if trained else [],
        cost=_cost(trained, read),
        probes=_probes(stage.probes, read),
        cells=() if intervals is None else measure_cells(walk.trial, number, matrix),
        probe_curve=_probe_curve(walk, number, read),
        score_curve=_score_curve(number, matrix, moments),
        score_intervals=matrix.score_intervals(number, names=fractional) if fractional else {},
        moment_intervals=_moment_intervals(number, matrix, moments) if moments and intervals is not None else {},
        wordings=_wordings(stage, read),
        trained_key=trained.key if trained else None,
    )


def _lacks_probes(walk: TrialProgress, read: Reading) -> bool:
    return any(read.find(step) is None for stage in walk.stages for step in (*stage.wordings, *stage.examined))


def _probes(steps: Sequence[ProbeStep], read: Reading) -> dict[str, float]:
    present = [record for step in steps if (record := read.find(step)) is not None]
    return {name: value for record in present for name, value in record["values"].items()}


def _probe_curve(walk: TrialProgress, number: int, read: Reading) -> list[dict[str, float]]:
    """What probes found at the moments inside a stage, and (of these probes) at its start and its end where those were asked."""
    stage = walk.stages[number]
    inside = {step.probe.name for moment in stage.moments for step in moment.probes}
    if not inside:
        return []
    rows = _at_moments(walk, number, read, lambda at: at.probes)
    inside_steps = {update: [step for step in steps if step.probe.name in inside] for update, steps in rows.items()}
    values = {update: _probes(steps, read) for update, steps in sorted(inside_steps.items())}
    return [{"update": update, **measured} for update, measured in values.items() if measured]


def _moment_scores(walk: TrialProgress, number: int, read: Reading) -> dict[int, MomentScores]:
    """What was answered at the moments inside a stage at which benchmarks were asked, at its start and at its end, by update."""
    stage = walk.stages[number]
    if not any(moment.evaluations for moment in stage.moments):
        return {}
    answered = {}
    for update, steps in sorted(_at_moments(walk, number, read, lambda at: at.evaluations).items()):
        scores = {
            step.benchmark.name: record["sample_scores"] for step in steps if (record := read.find(step)) is not None
        }
        if steps and len(scores) == len(steps):
            answered[update] = MomentScores(steps[0].checkpoint.key, scores)
    return answered


def _score_curve(number: int, matrix: ScoreMatrix, moments: Mapping[int, MomentScores]) -> list[dict[str, float]]:
    """The measures and scores at each moment."""
    curve = []
    for update, moment in moments.items():
        scores = moment.means()
        measures = matrix.measures_if(number, scores)
        shown = {name: measures[name] for name in MEASURES if name in measures}
        curve.append({"update": update, **shown, **{f"score/{name}": score for name, score in scores.items()}})
    return curve


def _moment_intervals(
    number: int, matrix: ScoreMatrix, moments: Mapping[int, MomentScores]
) -> dict[int, dict[str, Interval]]:
    intervals = zip(moments, matrix.intervals_if(number, list(moments.values())), strict=True)
    return {update: {name: ends[name] for name in MEASURES if name in ends} for update, ends in intervals}


def _wordings(stage: Stage, read: Reading) -> dict[str, dict[str, float]]:
    """The scores of held-out benchmarks in their other wordings, in points, by benchmark and wording."""
    by_benchmark: dict[str, dict[str, float]] = {}
    for step in stage.wordings:
        asked = step.benchmark
        if isinstance(asked, WordedBenchmark) and (record := read.find(step)) is not None:
            by_benchmark.setdefault(asked.of.name, {})[asked.wording.label] = 100 * float(
                np.mean(record["sample_scores"])
            )
    return by_benchmark


def _at_moments(
    walk: TrialProgress, number: int, read: Reading, asked: Callable[[Stage | SnapshotPoint], tuple[T, ...]]
) -> dict[int, tuple[T, ...]]:
    """What was asked at the start of a stage, at the moments inside it, and at the end of its fine-tune, by update."""
    stage = walk.stages[number]
    tuned = stage.tuned
    assert tuned is not None, "there are moments in stages that train"
    ends = {ended.checkpoint.key: asked(ended) for ended in walk.stages}
    rows = {0: ends.get(tuned.parent.key, ())}
    rows |= {moment.update: steps for moment in stage.moments if (steps := asked(moment))}
    if tuned.key in ends and (record := read.find(tuned)) is not None:
        rows[record["updates"]] = ends[tuned.key]
    return rows


def _cost(trained: Finetune | None, read: Reading) -> dict[str, float]:
    record = read.find(trained) if trained else None
    costs = {name: record[name] for name in COSTS if record and record.fields.get(name) is not None}
    return costs | (budget_of(record.fields) if record else {})
