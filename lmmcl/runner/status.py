"""How far a sweep is, read from the store alone: works beside a running sweep and after it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from lmmcl.ledger import Ledger
from lmmcl.spec.sweep import Sweep
from lmmcl.spec.trial import Stage, Trial


@dataclass(frozen=True)
class TrialStatus:
    """One trial: stages with all their scores, the stage that is next, and whether it is being computed now."""

    name: str
    key: str
    stages: int
    stages_done: int
    next: str | None
    running: bool


@dataclass(frozen=True)
class SweepStatus:
    """A sweep: steps and trials."""

    sweep: str
    wanted: int
    recorded: int
    trials: list[TrialStatus]

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def sweep_status(sweep: Sweep, ledger: Ledger) -> SweepStatus:
    """Compare the sweep with the ledger."""
    recorded = {key for key, step in sweep.steps.items() if ledger.find(step) is not None}
    now = ledger.being_written()
    return SweepStatus(
        sweep.name, len(sweep.steps), len(recorded), [_trial(trial, recorded, now) for trial in sweep.trials]
    )


def _trial(trial: Trial, recorded: set[str], now: set[str]) -> TrialStatus:
    done = 0
    for stage in trial.stages:
        if any(step.key not in recorded for step in stage.asked):
            break
        done += 1
    following = trial.stages[done] if done < len(trial.stages) else None
    return TrialStatus(
        name=trial.name,
        key=trial.key,
        stages=len(trial.stages),
        stages_done=done,
        next=_called(following) if following else None,
        running=following is not None and bool(_keys(following) & now),
    )


def _called(stage: Stage) -> str:
    return stage.skill.name if stage.skill else "pre-trained"


def _keys(stage: Stage) -> set[str]:
    parents = {parent.key for parent in stage.checkpoint.parents}
    return parents | {stage.checkpoint.key} | {step.key for step in stage.asked}


def status_table(status: SweepStatus) -> Table:
    """For the terminal."""
    title = f"{status.sweep}: {status.recorded} of {status.wanted} steps recorded"
    table = Table("trial", "stages", "next", title=title, box=SIMPLE_HEAD)
    for trial in status.trials:
        bar = "●" * trial.stages_done + "○" * (trial.stages - trial.stages_done)
        following = "done" if trial.next is None else f"{trial.next} (running)" if trial.running else trial.next
        table.add_row(trial.name, bar, following)
    return table
