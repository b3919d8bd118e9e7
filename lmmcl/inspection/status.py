"""How far a sweep is, read from the store alone: works beside a running sweep and after it."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from lmmcl.config.search_settings import Stopped
from lmmcl.config.sweep import Sweep
from lmmcl.ledger import Ledger
from lmmcl.ledger.index.view import RecordView
from lmmcl.reports import formatting
from lmmcl.reports.failures import Failure, kept_failures
from lmmcl.reports.tables.name_cells import name_cells
from lmmcl.search.progress import TrialProgress
from lmmcl.search.run_context import RunContext
from lmmcl.search.search_state import SearchState, search_states
from lmmcl.steps import Step
from lmmcl.steps.trial import Stage


@dataclass(frozen=True)
class TrialStatus:
    """One trial: stages with all their scores, the stage that is next, whether it is being computed now, why it failed.

    `failed` is the whole reason, with the end of the log of a process that died. `stages` are those that it walks; `stopped`
    says why these are not all.
    """

    name: str
    key: str
    stages: int
    stages_done: int
    next: str | None
    running: bool
    failed: str | None = None
    stopped: dict[str, Any] | None = None


@dataclass(frozen=True)
class SweepStatus:
    """A sweep: steps and trials. `seconds_left` is a guess from what like steps took; None before there is one of each kind."""

    sweep: str
    wanted: int
    recorded: int
    trials: list[TrialStatus]
    seconds_left: float | None = None
    searches: list[SearchState] = field(default_factory=list)

    @property
    def is_done(self) -> bool:
        """Whether all is recorded, and no search has more to propose."""
        return self.recorded == self.wanted and all(search.proposed == search.num_points for search in self.searches)

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def sweep_status(sweep: Sweep, ledger: Ledger) -> SweepStatus:
    """Compare the sweep, and what its searches have proposed, with the ledger."""
    return _status(RunContext.resolve(sweep, ledger), {})


def _status(context: RunContext, taken: dict[str, float]) -> SweepStatus:
    """The status as the context has it.

    `taken` holds the seconds of the steps that were found before, and is added to: what is recorded stays so, and a watched
    sweep reads each record once.
    """
    sweep, ledger, view = context.sweep, context.ledger, RecordView(context.ledger)
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
    now, recorded, failed = ledger.being_written(), set(taken), kept_failures(ledger, sweep.trials)
    trials = [_trial(walk, recorded, now, failed.get(walk.trial.key)) for walk, _ in walks]
    left = _seconds_left(steps, taken, trials)
    return SweepStatus(sweep.name, len(steps), len(recorded & steps.keys()), trials, left, search_states(sweep, ledger))


def _seconds_left(steps: Mapping[str, Step], taken: dict[str, float], trials: list[TrialStatus]) -> float | None:
    """What is missing takes as long as what is like it took, and as many trials at once as now."""
    like: dict[str, list[float]] = defaultdict(list)
    for key, step in steps.items():
        if key in taken:
            like[_likeness(step)].append(taken[key])
    missing = [_likeness(step) for key, step in steps.items() if key not in taken]
    if any(name not in like for name in missing):
        return None
    work = sum(sum(like[name]) / len(like[name]) for name in missing)
    return work / max(1, sum(trial.running for trial in trials))


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
    running = following is not None and bool(_keys(following) & now)
    return TrialStatus(
        name=trial.name,
        key=trial.key,
        stages=len(walk.stages),
        stages_done=done,
        next=_called(following) if following else None,
        running=running,
        failed=failed.why if failed and following is not None and not running else None,
        stopped=walk.stopped.to_dict() if walk.stopped else None,
    )


def _called(stage: Stage) -> str:
    return stage.skill.name if stage.skill else "pre-trained"


def _keys(stage: Stage) -> set[str]:
    parents = {parent.key for parent in stage.checkpoint.parents}
    inside = {moment.checkpoint.key for moment in stage.moments}
    return parents | inside | {stage.checkpoint.key} | {step.key for step in (*stage.asked, *stage.examined)}


def status_table(status: SweepStatus, most: int | None = None) -> Table:
    """For the terminal; with `most`, that many trials: running ones first, finished ones last."""
    trials = status.trials
    if most is not None and len(trials) > most:
        trials = sorted(trials, key=lambda trial: (not trial.running, trial.failed is None, trial.next is None))[:most]
    heading, names = name_cells([trial.name for trial in trials])
    table = Table(title=escape(headline(status)), box=SIMPLE_HEAD, title_justify="left")
    for column in (heading, "stages", "next"):
        table.add_column(column, no_wrap=column == "stages")
    for trial, name in zip(trials, names, strict=True):
        bar = "●" * trial.stages_done + "○" * (trial.stages - trial.stages_done)
        table.add_row(name, bar, escape(_following(trial)), style="red" if trial.failed else "")
    if len(trials) < len(status.trials):
        table.caption = formatting.plural(len(status.trials) - len(trials), "more trial")
    return table


def _following(trial: TrialStatus) -> str:
    if trial.next is None:
        return f"stopped: {Stopped(**trial.stopped)}" if trial.stopped else "done"
    if trial.failed:
        return f"{trial.next} failed: {formatting.first_line(trial.failed)} (lmmcl show {trial.key[:8]})"
    return f"{trial.next} (running)" if trial.running else trial.next


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
        parts.append("ETA unknown" if left is None else f"about {formatting.duration(left)} left{more}")
    return "; ".join(parts)


def watch(
    sweep: Sweep,
    ledger: Ledger,
    console: Console,
    *,
    every: float = 5.0,
    sleep: Callable[[float], None] = time.sleep,
) -> SweepStatus:
    """Refresh the status every few seconds until all is recorded (or the reader interrupts), and return the last one.

    Where the output is not a terminal, one line is written for each change.
    """
    taken: dict[str, float] = {}
    context, printed = RunContext.resolve(sweep, ledger), ""
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            context.refresh()
            status = _status(context, taken)
            if console.is_terminal:
                table = status_table(status, max(5, console.height - 8))
                table.caption = " · ".join(filter(None, [str(table.caption or ""), gpu_use()]))
                live.update(table, refresh=True)
            elif headline(status) != printed:
                printed = headline(status)
                console.print(printed, markup=False, highlight=False, soft_wrap=True)
            if status.is_done:
                return status
            sleep(every)


def gpu_use() -> str:
    """How busy this machine's NVIDIA GPUs are; empty where it has none."""
    if shutil.which("nvidia-smi") is None:
        return ""
    query = ["nvidia-smi", "--query-gpu=index,utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, check=True, timeout=5).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return ""
    rows = [line.split(", ") for line in lines if line.count(", ") == 2]
    return " · ".join(
        f"GPU {index} {busy} %, {int(used) / 1000:.1f} GB" for index, busy, used in rows if used.isdigit()
    )
