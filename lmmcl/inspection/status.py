"""How far a sweep is, read from the store alone: works beside a running sweep and after it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rich.console import Group
from rich.text import Text

from lmmcl.config.cluster import ClaimSettings
from lmmcl.config.search_settings import Stopped
from lmmcl.config.sweep import Sweep
from lmmcl.inspection.live_view import StepNames, TrialLine, Work, live_view, stage_name, stage_steps
from lmmcl.inspection.remaining_time import rough
from lmmcl.ledger import Ledger
from lmmcl.ledger.index.view import RecordView
from lmmcl.ledger.leases import Lease, Leases
from lmmcl.reports import formatting
from lmmcl.reports.failures import Failure, kept_failures
from lmmcl.search.progress import SweepProgress, TrialProgress
from lmmcl.search.run_context import RunContext
from lmmcl.search.search_state import SearchState, search_states
from lmmcl.steps import Step

MEASURED = 100
"""With more trials than this, their measures are left to the report: each asks for many records to be read."""


@dataclass(frozen=True)
class TrialStatus:
    """One trial: stages with all their scores, the stage that is next, whether it is being computed now, why it failed.

    `failed` is the whole reason, with the end of the log of a process that died. `stages` are those that it walks; `stopped`
    says why these are not all. The measures are of the last stage that is done, in points, where they were asked for.
    """

    name: str
    key: str
    stages: int
    stages_done: int
    next: str | None
    running: bool
    failed: str | None = None
    stopped: dict[str, Any] | None = None
    learning: float | None = None
    held_out_forgetting: float | None = None


@dataclass(frozen=True)
class SweepStatus:
    """A sweep: steps and trials. `seconds_left` is a guess from what like steps took; None before there is one of each kind.

    `working` is what each worker of any run does now, as its lease in the store says (some seconds old).
    """

    sweep: str
    wanted: int
    recorded: int
    trials: list[TrialStatus]
    seconds_left: float | None = None
    searches: list[SearchState] = field(default_factory=list)
    working: list[Work] = field(default_factory=list)

    @property
    def is_done(self) -> bool:
        """Whether all is recorded, and no search has more to propose."""
        return self.recorded == self.wanted and all(search.proposed == search.num_points for search in self.searches)

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def sweep_status(sweep: Sweep, ledger: Ledger) -> SweepStatus:
    """Compare the sweep, and what its searches have proposed, with the ledger."""
    return Looks(RunContext.resolve(sweep, ledger)).status()


class Looks:
    """Looks at a sweep, again and again: what is recorded stays so, and each record is read once."""

    def __init__(self, context: RunContext) -> None:
        self._context, self._view = context, RecordView(context.ledger)
        self._taken: dict[str, float] = {}
        """The seconds that recorded steps took."""
        self._leases = Leases(context.ledger.files, ClaimSettings())  # remembers which leases are not renewed
        self._measures = SweepProgress(lambda step: self._view.find(step), context.decisions)

    def status(self) -> SweepStatus:
        """The status as the store has it now."""
        self._context.refresh()
        self._view = RecordView(self._context.ledger)
        return _status(self._context, self._view, self._taken, self._leases, self._measures)


def _status(
    context: RunContext, view: RecordView, taken: dict[str, float], leases: Leases, measures: SweepProgress
) -> SweepStatus:
    """The status as the context has it; see `Looks` for what is kept from one look to the next."""
    sweep, ledger = context.sweep, context.ledger
    context = context.reading(view.find)
    walks = [(walk, walk.steps()) for walk in map(context.of, sweep.trials)]
    steps = {key: step for _, trial_steps in walks for key, step in trial_steps.items()}
    new = {key: step for key, step in steps.items() if key not in taken}
    view.prefetch(new.values())
    # Seconds are for a guess of what is left; where nothing is left, it is enough that all records are there.
    nothing_left = not sweep.spaces and all(view.has(step) for step in new.values())
    for key, step in new.items():
        if nothing_left:
            taken[key] = 0.0
        elif (record := view.find(step)) is not None:
            taken[key] = float(record.fields.get("seconds") or 0.0)
    view.keep()
    active = {key: lease for key, lease in leases.active().items() if key in steps}
    now, recorded = ledger.being_written() | active.keys(), set(taken)
    failed = kept_failures(ledger, sweep.trials)
    trials = [_trial(walk, recorded, now, failed.get(walk.trial.key)) for walk, _ in walks]
    if len(trials) <= MEASURED:
        trials = [_measured(trial, walk, measures) for trial, (walk, _) in zip(trials, walks, strict=True)]
    working = _working([walk for walk, _ in walks], active)
    left = _seconds_left(steps, taken, len(working) or sum(trial.running for trial in trials))
    done = len(recorded & steps.keys())
    return SweepStatus(sweep.name, len(steps), done, trials, left, search_states(sweep, ledger), working)


def _working(walks: Iterable[TrialProgress], active: Mapping[str, Lease]) -> list[Work]:
    """What each worker does now, the ones that began first at the top; a worker may hold the leases of several benchmarks."""
    if not active:
        return []
    names = StepNames()
    for walk in walks:
        names.add(walk.trial)
    by_worker = {lease.token: (key, lease) for key, lease in sorted(active.items(), key=lambda held: held[1].beat)}
    now, works = time.time(), []
    for key, lease in sorted(by_worker.values(), key=lambda held: held[1].since):
        seconds = max(0.0, now - lease.since) if lease.since else None
        works.append(names.work(key, lease.note, seconds, lease.host))
    return [work for work in works if work is not None]


def _measured(trial: TrialStatus, walk: TrialProgress, progress: SweepProgress) -> TrialStatus:
    """With its measures after the last stage that is done."""
    if trial.stages_done < 2:
        return trial
    measures = progress.measures(walk.trial)[: trial.stages_done]
    last = measures[-1] if measures else {}
    learning, held_out = last.get("learning"), last.get("held_out_forgetting")
    return replace(trial, learning=learning, held_out_forgetting=held_out)


def _seconds_left(steps: Mapping[str, Step], taken: dict[str, float], at_once: int) -> float | None:
    """What is missing takes as long as what is like it took, and as much at once as now."""
    like: dict[str, list[float]] = defaultdict(list)
    for key, step in steps.items():
        if key in taken:
            like[_likeness(step)].append(taken[key])
    missing = [_likeness(step) for key, step in steps.items() if key not in taken]
    if any(name not in like for name in missing):
        return None
    work = sum(sum(like[name]) / len(like[name]) for name in missing)
    return work / max(1, at_once)


def _likeness(step: Step) -> str:
    """Steps of one kind and model are taken to last equally long; benchmarks differ."""
    return f"{step.kind} {step.label if step.kind in ('evaluate', 'examine') else step.path.split('/')[1]}"


def _trial(walk: TrialProgress, recorded: set[str], now: set[str], failed: Failure | None) -> TrialStatus:
    trial, done = walk.trial, 0
    for stage in walk.stages:
        if any(step.key not in recorded for step in (*stage.asked, *stage.examined)):
            break
        done += 1
    following = walk.stages[done] if done < len(walk.stages) else None
    running = following is not None and any(step.key in now for step in stage_steps(following))
    return TrialStatus(
        name=trial.name,
        key=trial.key,
        stages=len(walk.stages),
        stages_done=done,
        next=stage_name(following) if following else None,
        running=running,
        failed=failed.why if failed and following is not None and not running else None,
        stopped=walk.stopped.to_dict() if walk.stopped else None,
    )


def status_view(status: SweepStatus, most: int | None = None, more: str = "") -> Group:
    """For the terminal; with `most`, that many trials: running ones first, finished ones last. `more` stands at the end."""
    lines = [_line(trial) for trial in status.trials]
    view = live_view(headline(status), lines, status.working, most)
    return Group(view, Text(more, style="dim")) if more else view


def _line(trial: TrialStatus) -> TrialLine:
    measures = trial.learning, trial.held_out_forgetting
    state, failed = _following(trial), bool(trial.failed)
    return TrialLine(trial.name, trial.stages, trial.stages_done, *measures, state, trial.running, failed)


def _following(trial: TrialStatus) -> str:
    if trial.next is None:
        return f"stopped: {Stopped(**trial.stopped)}" if trial.stopped else "done"
    if trial.failed:
        return f"{trial.next} failed: {formatting.first_line(trial.failed)} (lmmcl show {trial.key[:8]})"
    return f"{trial.next} (running)" if trial.running else f"next: {trial.next}"


def headline(status: SweepStatus) -> str:
    """Steps, trials by state, and time left in one line."""
    counts = {
        "done": sum(trial.next is None and trial.stopped is None for trial in status.trials),
        "stopped": sum(trial.next is None and trial.stopped is not None for trial in status.trials),
        "running": sum(trial.running for trial in status.trials),
        "failed": sum(trial.failed is not None for trial in status.trials),
    }
    states = ", ".join(f"{number} {name}" for name, number in counts.items() if number)
    parts = [f"{status.sweep}: {status.recorded} of {status.wanted} steps recorded"]
    parts += [formatting.plural(len(status.trials), "trial") + (f" ({states})" if states else "")]
    parts += [f"search: {search.proposed} of {search.num_points} points proposed" for search in status.searches]
    if status.recorded < status.wanted:
        left = status.seconds_left
        more = (
            ", excluding points still to be proposed"
            if any(search.proposed < search.num_points for search in status.searches)
            else ""
        )
        parts.append("ETA unknown" if left is None else f"about {rough(left)} left{more}")
    return "; ".join(parts)
