"""Progress that a person can follow: a live view in a terminal, lines of text elsewhere (see `lmmcl.inspection.live_view`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from lmmcl.config.search_settings import Stopped
from lmmcl.inspection.live_view import StepNames, TrialLine, Work, live_view
from lmmcl.inspection.remaining_time import StagePace, SteadyEstimate, clock, rough
from lmmcl.masking import mask
from lmmcl.reports import formatting
from lmmcl.runner.heartbeat import Heartbeat
from lmmcl.steps.trial import Trial
from lmmcl.terminal import escape_controls

SHOWN = ("stage", "learning", "held_out_forgetting", "stopped")
"""What is kept of the last report of each trial."""
TOLD = 3
"""Workers that one line of a log tells of."""


class Display:
    """Told what happens by the runner (see `RunListener` in `lmmcl.runner.trial_driver`); use as a context manager.

    `coming` is how many stages the trials have that a search will propose; time left counts them.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        console: Console,
        coming: int = 0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console, self._coming, self._clock = console, coming, now
        self._started = now()
        self._trials = {trial.key: trial for trial in trials}
        self._names: StepNames | None = None
        self._reports: dict[str, dict[str, Any]] = {}
        self._failures: dict[str, str] = {}
        self._notes: dict[str, tuple[Mapping[str, Any], float]] = {}
        self._phase: tuple[str, float] = ("", self._started)
        self._pace, self._estimate = StagePace(self._started), SteadyEstimate()
        self._heartbeat = Heartbeat(self._tell)
        self._live = Live(get_renderable=self._view, console=console, refresh_per_second=2, transient=True)

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
        works = self._works()
        more = f" (and {len(works) - TOLD} more)" if len(works) > TOLD else ""
        doing = "; ".join(map(str, works[:TOLD])) + more if works else self._phase[0] or "waiting"
        self._print(f"[{clock(self._elapsed())}, {self._left()}] {escape_controls(mask(doing))}")

    def phase(self, doing: str) -> None:
        """What the run itself is doing before anything is computed."""
        self._phase = doing, self._clock()
        if not self._console.is_terminal and self._trials:
            self._print(f"[{clock(self._elapsed())}] {doing}")

    def note(self, text: str) -> None:
        """Something that a person should know, and that ends nothing."""
        self._print(f"note: {text}")

    def trial_opened(self, trial: Trial) -> None:
        """A search has proposed `trial`."""
        if trial.key not in self._trials:
            self._trials[trial.key] = trial
            self._coming = max(0, self._coming - len(trial.stages))
            if self._names is not None:
                self._names.add(trial)

    def stage_done(self, trial: Trial, report: Mapping[str, Any], *, computed: bool = True) -> None:
        """A stage of `trial` has all its scores; one that was recorded before this run says nothing of how long others take."""
        self._reports[trial.key] = {name: report[name] for name in SHOWN if name in report}
        if report["stage"] and computed:
            self._pace.completed(self._clock())
        else:
            self._pace.restart(self._clock())
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
        """What is running now: notes by step key; empty ones are of steps that wait for their turn."""
        now = self._clock()
        self._notes = {
            key: (note, self._notes[key][1] if key in self._notes else now) for key, note in notes.items() if note
        }

    def _line(self, trial: Trial, report: Mapping[str, Any]) -> None:
        stage = trial.stages[report["stage"]]
        taught = f"after {stage.skill.name}" if stage.skill else "pre-trained"
        text = f"[{clock(self._elapsed())}, {self._left()}] {trial.name} · stage {stage.number} ({taught})"
        for measure in ("learning", "held_out_forgetting"):
            if measure in report:
                text += f" · {measure.replace('_', ' ')} {report[measure]:+.1f}"
        if "stopped" in report:
            text += f" · stopped: {Stopped(**report['stopped'])}"
        self._print(text)

    def _view(self) -> Group:
        works = self._works()
        running = {name for work in works for name in work.trials}
        lines = [self._trial_line(trial, trial.name in running) for trial in self._trials.values()]
        doing, since = self._phase
        idle = f"{doing} (for {clock(self._clock() - since)})" if doing and not works and not self._reports else ""
        headline = f"{clock(self._elapsed())} elapsed, {idle or self._left()}"
        return live_view(headline, lines, works, max(5, self._console.height - len(works) - 8))

    def _trial_line(self, trial: Trial, running: bool) -> TrialLine:
        report = self._reports.get(trial.key, {})
        failed, done = trial.key in self._failures, report.get("stage", -1) + 1
        state = "failed" if failed else "done" if done == len(trial.stages) else ""
        if "stopped" in report:
            state = f"stopped: {Stopped(**report['stopped'])}"
        measures = report.get("learning"), report.get("held_out_forgetting")
        return TrialLine(trial.name, len(trial.stages), done, *measures, state, running and not state, failed)

    def _works(self) -> list[Work]:
        """What the workers do now, the ones that began first at the top."""
        if not self._notes:
            return []
        if self._names is None:
            self._names = StepNames()
            for trial in self._trials.values():
                self._names.add(trial)
        now = self._clock()
        notes = sorted(dict(self._notes).items(), key=lambda item: item[1][1])
        works = [self._names.work(key, note, now - since) for key, (note, since) in notes]
        return [work for work in works if work is not None]

    def _elapsed(self) -> float:
        return self._clock() - self._started

    def _left(self) -> str:
        """Time left at the pace so far; stages are taken as equally long, and those of the pre-trained model as nothing."""
        now = self._clock()
        total = self._coming + sum(self._stages(key) - 1 for key in self._trials)
        done = sum(max(0, report["stage"]) for report in self._reports.values())
        left = self._estimate.update(self._pace.seconds_left(total - done, len(self._notes), now), now)
        return "ETA unknown" if left is None else f"about {rough(left)} left" if total > done else "nearly done"

    def _stages(self, key: str) -> int:
        """How many stages a trial walks, as far as is known: not those after a failure or a stop."""
        report = self._reports.get(key, {})
        ended = "stopped" in report or key in self._failures
        return max(1, report.get("stage", 0) + 1) if ended else len(self._trials[key].stages)
