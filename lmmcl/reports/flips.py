"""Question by question: what a model could answer before it was taught and cannot after, and the reverse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from lmmcl.config.sweep import Sweep
from lmmcl.errors import UserError, unknown
from lmmcl.ledger import Ledger
from lmmcl.reports.recommend import recommend
from lmmcl.reports.results import SweepResults
from lmmcl.reports.seeds import grid_points
from lmmcl.reports.tables.name_cells import name_cells
from lmmcl.search.progress import TrialProgress
from lmmcl.search.run_context import RunContext
from lmmcl.steps import Evaluate

ANSWERED = 0.5
"""A score from which a question counts as answered: metrics may give a part of a point."""
PAGE_TRIALS = 6
"""Trials of the front whose answers the page of a large sweep and MLflow show."""


@dataclass(frozen=True)
class Flip:
    """One question, what counts as right, and what was said before the first stage and after the one compared."""

    id: str
    question: str
    references: Sequence[str]
    before: str
    after: str
    score_before: float
    score_after: float


@dataclass(frozen=True)
class Flips:
    """The questions of one benchmark that one trial has unlearnt (`lost`), learnt (`gained`) or has wrong, out of `questions`."""

    trial: str
    key: str
    benchmark: str
    stage: int
    questions: int
    lost: list[Flip] = field(default_factory=list)
    gained: list[Flip] = field(default_factory=list)
    wrong: list[Flip] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def sweep_flips(sweep: Sweep, ledger: Ledger, benchmark: str, trials: Iterable[str] = ()) -> list[Flips]:
    """The flips of the named trials (none: of all that have a stage after the first) on one benchmark.

    Raises UserError for an unknown trial or benchmark, for a named trial that has not been asked yet, and for damaged answers.
    """
    context = RunContext.resolve(sweep, ledger)
    sweep = context.sweep
    names = list(dict.fromkeys(candidate.name for trial in sweep.trials for candidate in trial.benchmarks))
    if benchmark not in names:
        raise UserError(unknown("benchmark", benchmark, names), file=sweep.file)
    wanted = list({trial.key: trial for name in trials for trial in sweep.seeds(name)}.values())
    answers = AnswerRows(ledger.read_lines)
    by_trial = [trial_flips(context.of(trial), benchmark, answers) for trial in wanted or sweep.trials]
    for trial, flips in zip(wanted, by_trial, strict=False):
        if flips is None:
            raise UserError(f"{trial.name} has no answers to {benchmark} after a stage yet", file=sweep.file)
    return [flips for flips in by_trial if flips is not None]


class AnswerRows:
    """What was answered, by step; answers of the model before the first stage are the same for all trials, and kept."""

    def __init__(self, rows: Callable[[str, str], list[dict[str, Any]]]) -> None:
        self._rows = rows
        self._base: dict[str, list[dict[str, Any]]] = {}

    def of(self, step: Evaluate) -> list[dict[str, Any]]:
        """The rows of a step; empty where it is not recorded."""
        if step.checkpoint.depth:
            return self._rows(step.path, "samples.jsonl")
        if step.path not in self._base:
            self._base[step.path] = self._rows(step.path, "samples.jsonl")
        return self._base[step.path]


def trial_flips(walk: TrialProgress, benchmark: str, answers: AnswerRows) -> Flips | None:
    """Answers after the last stage that a trial walks and that has them, against those before the first; None where one of
    them is missing."""
    trial = walk.trial
    stages = [
        (stage.number, answers.of(step))
        for stage in walk.stages
        for step in stage.evaluations
        if step.benchmark.name == benchmark
    ]
    answered = [(number, rows) for number, rows in stages if rows]
    if len(answered) < 2 or answered[0][0] != 0:
        return None
    (_, before), (stage, after) = answered[0], answered[-1]
    by_id = {row["id"]: row for row in before}
    pairs = [(by_id[row["id"]], row) for row in after if row["id"] in by_id]
    lost = [_flip(a, b) for a, b in pairs if a["score"] >= ANSWERED > b["score"]]
    gained = [_flip(a, b) for a, b in pairs if a["score"] < ANSWERED <= b["score"]]
    wrong = [_flip(a, b) for a, b in pairs if b["score"] < ANSWERED]
    return Flips(trial.name, trial.key, benchmark, stage, len(pairs), lost, gained, wrong)


def _flip(before: Mapping[str, Any], after: Mapping[str, Any]) -> Flip:
    predictions = (before["prediction"], after["prediction"])
    return Flip(after["id"], after["question"], after["references"], *predictions, before["score"], after["score"])


TITLES = {
    "lost": "Answered before, not after",
    "gained": "Answered after, not before",
    "wrong": "Wrong after the last stage",
}


def flips_view(by_trial: Sequence[Flips], most: int, kinds: Sequence[str] = ("lost", "gained")) -> Group:
    """For the terminal: counts by trial; of one trial its questions, of several those that concern most of them first."""
    counts = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    ordered = sorted(by_trial, key=lambda flips: len(flips.lost))
    trial_heading, names = name_cells([flips.trial for flips in ordered])
    counts.add_column(trial_heading)
    for heading in ("stage", "questions", "lost", "gained", "wrong"):
        counts.add_column(heading, justify="right")
    for flips, name in zip(ordered, names, strict=True):
        numbers = (flips.stage, flips.questions, len(flips.lost), len(flips.gained), len(flips.wrong))
        counts.add_row(name, *map(str, numbers))
    parts: list[Any] = [counts]
    for kind in kinds:
        parts.append(f"[bold]{TITLES[kind]}[/bold]")
        parts.append(
            _of_one(getattr(by_trial[0], kind), most) if len(by_trial) == 1 else _of_many(by_trial, kind, most)
        )
    return Group(*parts)


def _of_one(flips: Sequence[Flip], most: int) -> Table | str:
    if not flips:
        return "  none\n"
    table = Table("id", "question", "wanted", "before", "after", box=box.SIMPLE_HEAD)
    for flip in flips[:most]:
        wanted = " / ".join(map(str, flip.references))
        table.add_row(*map(escape, (flip.id, flip.question, wanted, flip.before, flip.after)))
    if len(flips) > most:
        table.caption = f"{len(flips) - most} more; use --most to list them"
    return table


def _of_many(by_trial: Sequence[Flips], kind: str, most: int) -> Table | str:
    every = {flip.id: flip for flips in by_trial for flip in getattr(flips, kind)}
    often = Counter(flip.id for flips in by_trial for flip in getattr(flips, kind))
    if not often:
        return "  none\n"
    table = Table("id", "question", "wanted", "trials", box=box.SIMPLE_HEAD)
    for id, times in often.most_common(most):
        wanted = " / ".join(map(str, every[id].references))
        table.add_row(*map(escape, (id, every[id].question, wanted)), f"{times} of {len(by_trial)}")
    return table


def front_keys(results: SweepResults) -> list[str]:
    """Keys of the trials of the fronts (of all finished ones, where none has learned), one seed of each; at most as many as a page
    shows, those that learn most."""
    points = grid_points(results)
    chosen = [choice.trial for advice in recommend(points) for choice in advice.choices]
    chosen = chosen or [trial for trial in points.trials if trial.state == "done"]
    return [trial.seeds[0].key if trial.seeds else trial.key for trial in chosen][-PAGE_TRIALS:]


def notable_keys(results: SweepResults) -> list[str]:
    """Keys of the trials that the page of a large sweep shows in detail, at most as many as it has room for, one seed of each.

    These are the fronts, what is within noise of the trial there that learns most, and others that learn most.
    """
    points = grid_points(results)
    ties = [tie.trial for advice in recommend(points) for choice in advice.choices[-1:] for tie in choice.ties]
    ended = [trial for trial in points.trials if trial.state == "done" and trial.measure("learning") is not None]
    ended.sort(key=lambda trial: -(trial.measure("learning") or 0.0))
    keys = [trial.seeds[0].key if trial.seeds else trial.key for trial in (*ties, *ended)]
    return list(dict.fromkeys([*reversed(front_keys(results)), *keys]))[:PAGE_TRIALS]
