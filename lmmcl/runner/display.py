"""Progress that a person can follow: a live table in a terminal, one line per finished stage elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lmmcl.config.search_settings import Stopped
from lmmcl.masking import mask
from lmmcl.reports import formatting
from lmmcl.reports.tables.name_cells import name_cells
from lmmcl.runner.heartbeat import Heartbeat
from lmmcl.steps.trial import Stage, Trial
from lmmcl.terminal import escape_controls


class Display:
    """Told what happens by the runner (see `RunListener` in `lmmcl.runner.trial_driver`); use as a context manager.

    `coming` is how many stages the trials have that a search will propose; time left counts them.
    """

    def __init__(self, trials: Sequence[Trial], console: Console, coming: int = 0) -> None:
        self._console, self._coming = console, coming
        self._started = time.monotonic()
        self._trials = {trial.key: trial for trial in trials}
        self._reports: dict[str, dict[str, Any]] = {}
        self._failures: dict[str, str] = {}
        self._notes: Mapping[str, Mapping[str, Any]] = {}
        self._phase = ""
        self._heartbeat = Heartbeat(self._tell)
        self._live = Live(get_renderable=self._table, console=console, refresh_per_second=2, transient=True)

    def __enter__(self) -> Display:
        if self._console.is_terminal:
            self._live.start()
        elif self._trials:
            stages = sum(len(trial.stages) for trial in self._trials.values())
            count = formatting.plural(len(self._trials), "trial")
            text = f"Running {count} ({stages} stages). Results are printed as each stage completes."
            self._print(text)
            self._heartbeat.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._heartbeat.stop()
        self._live.stop()

    def _print(self, text: str) -> None:
        self._heartbeat.postpone()
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _tell(self) -> None:
        """A line for who watches a log: what is being computed now."""
        doing = [now for key in self._trials if (now := self._now_of(key)) not in ("", "done")]
        more = f" (and {len(doing) - 1} more)" if len(doing) > 1 else ""
        doing_text = f"{doing[0]}{more}" if doing else self._phase or "waiting"
        self._print(f"[{_clock(self._elapsed())}, {self._left()}] {escape_controls(mask(doing_text))}")

    def phase(self, doing: str) -> None:
        """What the run itself is doing before anything is computed."""
        self._phase = doing
        if not self._console.is_terminal and self._trials:
            self._print(f"[{_clock(self._elapsed())}] {doing}")

    def trial_opened(self, trial: Trial) -> None:
        """A search has proposed `trial`."""
        if trial.key not in self._trials:
            self._trials[trial.key] = trial
            self._coming = max(0, self._coming - len(trial.stages))

    def stage_done(self, trial: Trial, report: Mapping[str, Any]) -> None:
        """A stage of `trial` has all its scores."""
        self._reports[trial.key] = dict(report)
        if not self._console.is_terminal:
            self._line(trial, report)

    def trial_failed(self, trial: Trial, why: str, details: str) -> None:
        """`trial` ended before its last stage; the traceback (`details`) is for the store, not for the terminal.

        A step that trials share fails them all: the end of its log is printed once.
        """
        reason = f"{formatting.first_line(why)} (see above)" if why in self._failures.values() else why
        self._failures[trial.key] = why
        self._console.print(Text(f"failed: {trial.name}: {reason}", style="red"), soft_wrap=True)

    def running(self, notes: Mapping[str, Mapping[str, Any]]) -> None:
        """What is running now: notes by step key."""
        self._notes = notes

    def _line(self, trial: Trial, report: Mapping[str, Any]) -> None:
        stage = trial.stages[report["stage"]]
        taught = f"after {stage.skill.name}" if stage.skill else "pre-trained"
        text = f"[{_clock(self._elapsed())}, {self._left()}] {trial.name} · stage {stage.number} ({taught})"
        for measure in ("learning", "held_out_forgetting"):
            if measure in report:
                text += f" · {measure.replace('_', ' ')} {report[measure]:+.1f}"
        if "stopped" in report:
            text += f" · stopped: {Stopped(**report['stopped'])}"
        self._print(text)

    def _table(self) -> Table:
        idle = self._phase and not any(self._notes.values()) and not self._reports
        table = Table(
            title=f"{_clock(self._elapsed())} elapsed, {self._phase if idle else self._left()}",
            title_justify="left",
            box=None,
            padding=(0, 2, 0, 0),
        )
        heading, names = name_cells([trial.name for trial in self._trials.values()])
        for column in (heading, "stages", "learning", "held-out", "now"):
            table.add_column(
                column, no_wrap=column not in (heading, "now")
            )  # a narrow terminal shortens names, and cuts "now"
        for (key, trial), name in zip(self._trials.items(), names, strict=True):
            report = self._reports.get(key, {})
            reached = report.get("stage", -1)
            bar = "●" * (reached + 1) + "○" * (len(trial.stages) - reached - 1)
            now = self._now_of(key)
            measures = (_points(report, "learning"), _points(report, "held_out_forgetting"))
            table.add_row(name, bar, *measures, _cut(now))
        return table

    def _now_of(self, key: str) -> str:
        reached = self._reports.get(key, {}).get("stage", -1)
        return "failed" if key in self._failures else self._now(self._trials[key], reached)

    def _now(self, trial: Trial, reached: int) -> str:
        if "stopped" in self._reports.get(trial.key, {}):
            return f"stopped: {Stopped(**self._reports[trial.key]['stopped'])}"
        if reached + 1 >= len(trial.stages):
            return "done"
        stage = trial.stages[reached + 1]
        note = self._note(stage)
        if note is None:
            return ""
        doing = stage.skill.name if stage.skill else "pre-trained"
        if "update" in note:
            return f"{doing}: update {note['update']}/{note['updates']}, {note['updates_per_second']:.1f}/s"
        if "benchmark" in note:
            answered = f" {note['answered']}/{note['questions']}" if "answered" in note else ""
            return f"{doing}: evaluating {note['benchmark']}{answered} ({note['asked']}/{note['benchmarks']})"
        if "doing" in note:
            return f"{doing}: {note['doing']}"
        return f"{doing}: waiting"

    def _note(self, stage: Stage) -> Mapping[str, Any] | None:
        keys = [stage.checkpoint.key, *(parent.key for parent in stage.checkpoint.parents)]
        keys += [step.key for step in (*stage.asked, *stage.examined)]
        notes = [self._notes[key] for key in keys if key in self._notes]
        return max(notes, key=len, default=None)

    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _left(self) -> str:
        """Time left at the pace so far; stages are taken as equally long."""
        total = self._coming + sum(self._stages(key) for key in self._trials)
        done = sum(report["stage"] + 1 for report in self._reports.values())
        return f"{_clock(self._elapsed() / done * (total - done))} left" if done > len(self._reports) else "ETA unknown"

    def _stages(self, key: str) -> int:
        """How many stages a trial walks, as far as is known."""
        report = self._reports.get(key, {})
        return report["stage"] + 1 if "stopped" in report else len(self._trials[key].stages)


def _cut(text: str) -> Text:
    """One line, as much of it as there is room for; names are not read as markup."""
    return Text(escape_controls(mask(text)), no_wrap=True, overflow="ellipsis")


def _points(report: Mapping[str, Any], measure: str) -> str:
    return f"{report[measure]:+.1f}" if measure in report else ""


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"
