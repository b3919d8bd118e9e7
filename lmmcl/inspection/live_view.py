"""A running sweep on one screen: how far each trial is, and what each worker does now and since when.

`lmmcl run` draws it from the notes of its workers, `lmmcl status` from the store. It is as wide as the terminal: names stand
without the parts that all trials share, and what does not fit is folded, not cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, JustifyMethod
from rich.table import Table
from rich.text import Text

from lmmcl.config.trial_names import SEPARATOR, shared_parts, short_names
from lmmcl.inspection.remaining_time import clock
from lmmcl.masking import mask
from lmmcl.reports import formatting
from lmmcl.reports.tables.text_table import TextTable
from lmmcl.steps import Step
from lmmcl.steps.trial import Stage, Trial
from lmmcl.terminal import escape_controls

DOTS = 12
"""Stages that are drawn as dots; more are numbers."""
NAME_WIDTH = 16
"""Characters that a name gets before it is folded for the sake of other columns."""
_LOOK: dict[str, Any] = {"box": None, "padding": (0, 2, 0, 0), "pad_edge": False, "header_style": "bold"}


@dataclass(frozen=True)
class TrialLine:
    """A trial: its stages, its measures so far in points, and its state where that is more than waiting or running."""

    name: str
    stages: int
    done: int
    learning: float | None = None
    held_out: float | None = None
    state: str = ""
    running: bool = False
    failed: bool = False

    @property
    def bar(self) -> str:
        """The stages that are done and those to come."""
        if self.stages > DOTS:
            return f"{self.done}/{self.stages}"
        return "●" * self.done + "○" * (self.stages - self.done)


@dataclass(frozen=True)
class Work:
    """What a worker does now: the stage and what of it, for which trials, for how many seconds, and on which machine."""

    stage: str
    doing: str
    trials: tuple[str, ...]
    seconds: float | None = None
    host: str = ""

    def __str__(self) -> str:
        """For a log."""
        since = f" (for {clock(self.seconds)})" if self.seconds is not None else ""
        return f"{self.stage}: {self.doing}{since}"


def live_view(headline: str, trials: Sequence[TrialLine], works: Sequence[Work], most: int | None = None) -> Group:
    """The screen: a headline, trials (with `most`, that many: running and failed ones first), and what is being done now."""
    names = [escape_controls(mask(trial.name)) for trial in trials]
    short = dict(zip(names, short_names(names), strict=True))
    shown = trials if most is None or len(trials) <= most else _first(trials, max(1, most))
    parts: list[Any] = [Text(escape_controls(mask(headline)), style="italic")]
    if shown:
        parts += [_trial_table(shown, short), *_below(trials, shown, names)]
    if works:
        parts += [Text(), _work_table(works, short)]
    return Group(*parts)


def _first(trials: Sequence[TrialLine], most: int) -> list[TrialLine]:
    """Running ones, failed ones, waiting ones, finished ones; each kind in its order."""
    return sorted(trials, key=lambda trial: (not trial.running, not trial.failed, trial.done == trial.stages))[:most]


def _trial_table(trials: Sequence[TrialLine], short: Mapping[str, str]) -> Table:
    rows = [[trial.bar, formatted(trial.learning), formatted(trial.held_out), trial.state] for trial in trials]
    heads = ["stages", "learning", "held-out", "state"]
    kept = [place for place in range(len(heads)) if place == 0 or any(row[place] for row in rows)]
    table = TextTable(**_LOOK)
    table.add_column(Text("trial"), overflow="fold", min_width=NAME_WIDTH)
    for place in kept:
        justify: JustifyMethod = "right" if place in (1, 2) else "left"
        table.add_column(Text(heads[place]), justify=justify, no_wrap=place < 3, overflow="fold")
    for trial, row in zip(trials, rows, strict=True):
        name = Text(short[escape_controls(mask(trial.name))], overflow="fold")
        cells = [Text(escape_controls(mask(row[place])), overflow="fold") for place in kept]
        table.add_row(name, *cells, style="red" if trial.failed else "")
    return table


def _below(trials: Sequence[TrialLine], shown: Sequence[TrialLine], names: Sequence[str]) -> list[Text]:
    """What is left out of the rows, and what all names share."""
    lines = []
    if left := len(trials) - len(shown):
        done = sum(trial.done == trial.stages for trial in trials) - sum(trial.done == trial.stages for trial in shown)
        lines.append(f"and {formatting.plural(left, 'more trial')}" + (f" ({done} done)" if done else ""))
    if (shared := shared_parts(names)) and short_names(names) != list(names):
        lines.append(f"all trials: {SEPARATOR.join(shared)}")
    return [Text(line, style="dim") for line in lines]


def _work_table(works: Sequence[Work], short: Mapping[str, str]) -> Table:
    hosts = {work.host for work in works}
    table = Table(**_LOOK)
    table.add_column("working now", overflow="fold", ratio=3)
    table.add_column("for", justify="right", no_wrap=True)
    table.add_column("trial", overflow="fold", ratio=2)
    if len(hosts) > 1:
        table.add_column("on", overflow="fold")
    for work in works:
        since = "" if work.seconds is None else clock(work.seconds)
        cells = [f"{work.stage}: {work.doing}", since, _whose(work, short), *([work.host] if len(hosts) > 1 else [])]
        table.add_row(*(Text(escape_controls(mask(cell)), overflow="fold") for cell in cells))
    return table


def _whose(work: Work, short: Mapping[str, str]) -> str:
    if len(work.trials) > 1:
        return formatting.plural(len(work.trials), "trial")
    return "".join(short.get(escape_controls(mask(name)), name) for name in work.trials)


def formatted(value: float | None) -> str:
    """Points, or nothing where there are none yet."""
    return "" if value is None else formatting.points(value)


def describe(note: Mapping[str, Any]) -> str:
    """What a worker says of a step (see `Progress` in `lmmcl.runner.execute`) in words."""
    if "update" in note:
        return f"update {note['update']}/{note['updates']}, {note['updates_per_second']:.1f}/s"
    if "benchmark" in note:
        answered = f" {note['answered']}/{note['questions']}" if "answered" in note else ""
        return f"{note.get('doing', 'evaluating')} {note['benchmark']}{answered} ({note['asked']}/{note['benchmarks']})"
    return str(note.get("doing", "working"))


def stage_name(stage: Stage) -> str:
    """The skill of a stage; stage 0 is the pre-trained model."""
    return stage.skill.name if stage.skill else "pre-trained"


class StepNames:
    """Whose step a key is: the first stage that needs it, and the trials that do."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, list[str]]] = {}

    def add(self, trial: Trial) -> None:
        """The steps of a trial."""
        for stage in trial.stages:
            for step in stage_steps(stage):
                self._found.setdefault(step.key, (stage_name(stage), []))[1].append(trial.name)

    def work(self, key: str, note: Mapping[str, Any], seconds: float | None, host: str = "") -> Work | None:
        """What the worker of step `key` does; None for a step of another sweep."""
        if key not in self._found:
            return None
        stage, names = self._found[key]
        return Work(stage, describe(note), tuple(dict.fromkeys(names)), seconds, host)


def stage_steps(stage: Stage) -> list[Step]:
    """The steps that bring a stage and its scores into being, with the checkpoints that it starts from."""
    own = (*stage.checkpoint.parents, *([stage.tuned] if stage.tuned is not None else []))
    inside = [moment.checkpoint for moment in stage.moments]
    steps = (*own, *inside, stage.checkpoint, *stage.asked, *stage.examined)
    return list({step.key: step for step in steps}.values())
