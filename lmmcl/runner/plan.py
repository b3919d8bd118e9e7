"""What a sweep wants, what the ledger has, what is to run. Instant: imports neither torch nor ray."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table

from lmmcl.ledger import Ledger
from lmmcl.reports import words
from lmmcl.runner.estimate import check_memory, stage_memory
from lmmcl.runner.pace import Pace, estimate_pace
from lmmcl.spec.cluster import Cluster
from lmmcl.spec.steps import Finetune, Merge, Snapshot, Step
from lmmcl.spec.sweep import Sweep
from lmmcl.spec.trained import trained_of
from lmmcl.spec.trial import Trial

BYTES_PER_PARAMETER = {"fp32": 4, "bf16": 2, "fp16": 2}
KINDS = ("pretrained", "finetune", "snapshot", "merge", "evaluate", "examine")


@dataclass(frozen=True)
class TrialPlan:
    """One trial: how much of it is recorded, and what a stage of it trains and writes."""

    name: str
    key: str
    axes: dict[str, Any]
    wanted: int
    recorded: int
    trained_parameters: int
    bytes_per_stage: int
    gpu_bytes: dict[str, int] | None = None


@dataclass(frozen=True)
class Plan:
    """Counts of steps by kind; bytes are those that checkpoints still to be computed will write; `notes` what is left out."""

    sweep: str
    wanted: dict[str, int]
    recorded: dict[str, int]
    to_run: dict[str, int]
    asked_by_trials: int
    bytes_to_write: int
    trials: list[TrialPlan]
    pace: Pace | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to run."""
        return not any(self.to_run.values())

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def make_plan(sweep: Sweep, ledger: Ledger, cluster: Cluster | None = None) -> Plan:
    """Compare the steps of `sweep` with the records of `ledger`.

    With `cluster`, also estimate the memory that each GPU needs, and the time. Raises UserError when a stage cannot fit.
    """
    recorded = {key for key, step in sweep.steps.items() if ledger.find(step) is not None}
    wanted = Counter(step.kind for step in sweep.steps.values())
    done = Counter(sweep.steps[key].kind for key in recorded)
    missing = [step for key, step in sweep.steps.items() if key not in recorded]
    sizes = {trial.key: _stage_bytes(trial) for trial in sweep.trials}
    if cluster:
        for step in missing:
            if isinstance(step, Finetune | Snapshot):
                check_memory(step.finetune if isinstance(step, Snapshot) else step, cluster)
    return Plan(
        sweep=sweep.name,
        wanted={kind: wanted[kind] for kind in KINDS},
        recorded={kind: done[kind] for kind in KINDS},
        to_run={kind: wanted[kind] - done[kind] for kind in KINDS},
        asked_by_trials=sum(len(trial.steps()) for trial in sweep.trials),
        bytes_to_write=sum(_checkpoint_bytes(step) for step in missing),
        trials=[_trial_plan(trial, recorded, sizes[trial.key], cluster) for trial in sweep.trials],
        pace=estimate_pace(missing, ledger) if cluster else None,
        notes=tuple(dict.fromkeys(note for trial in sweep.trials for note in _left_out(trial))),
    )


def _left_out(trial: Trial) -> Iterator[str]:
    """The updates of probes that lie beyond the end of a stage, and stages whose end nobody knows yet."""
    if not any(probe.updates for probe in trial.probes):
        return
    for stage in (step for step in trial.steps().values() if isinstance(step, Finetune)):
        for probe in trial.probes:
            beyond = [update for update in probe.updates if stage.updates and update > stage.updates]
            if beyond:
                yield (
                    f"{probe.name} is not asked after {_numbers(beyond)} updates of {stage.skill.name}: "
                    f"a stage of it has {stage.updates}"
                )
            if probe.updates and stage.updates is None:
                yield f"{probe.name}: how many updates {stage.skill.name} has is known when its data are there"


def _numbers(some: Sequence[int]) -> str:
    return ", ".join(map(str, some))


def _trial_plan(trial: Trial, recorded: set[str], stage_bytes: int, cluster: Cluster | None) -> TrialPlan:
    steps = trial.steps()
    return TrialPlan(
        name=trial.name,
        key=trial.key,
        axes=dict(trial.axes),
        wanted=len(steps),
        recorded=len(recorded & set(steps)),
        trained_parameters=trial.trained_parameters(),
        bytes_per_stage=stage_bytes,
        gpu_bytes=_gpu_bytes(trial, cluster) if cluster and cluster.training.gpus_per_worker else None,
    )


def _gpu_bytes(trial: Trial, cluster: Cluster) -> dict[str, int] | None:
    first = next((step for step in trial.steps().values() if isinstance(step, Finetune)), None)
    return stage_memory(first, cluster.training).to_dict() if first else None


def _stage_bytes(trial: Trial) -> int:
    return trained_of(trial.recipe, trial.model).written * BYTES_PER_PARAMETER[trial.training.precision]


def _checkpoint_bytes(step: Step) -> int:
    """A delta holds the trained tensors; a merge rewrites those of its fine-tune."""
    if isinstance(step, Merge):
        return _checkpoint_bytes(step.tuned)
    if isinstance(step, Snapshot):
        return _checkpoint_bytes(step.finetune)
    if not isinstance(step, Finetune):
        return 0
    return trained_of(step.recipe, step.model).written * BYTES_PER_PARAMETER[step.training.precision]


def plan_table(plan: Plan) -> Group:
    """For the terminal: steps by kind, then a row for each trial."""
    steps = Table(
        "steps", "wanted", "recorded", "to run", title=f"{plan.sweep}: {len(plan.trials)} trials", box=SIMPLE_HEAD
    )
    for kind in KINDS:
        if plan.wanted[kind]:
            steps.add_row(kind, str(plan.wanted[kind]), str(plan.recorded[kind]), str(plan.to_run[kind]))
    gpu = any(trial.gpu_bytes for trial in plan.trials)
    more = ["about, on each GPU"] if gpu else []
    trials = Table("trial", "steps recorded", "parameters trained", "bytes per stage", *more, box=SIMPLE_HEAD)
    for trial in plan.trials:
        recorded = f"{trial.recorded}/{trial.wanted}"
        size = [words.size(trial.gpu_bytes["total"])] if trial.gpu_bytes else []
        trials.add_row(trial.name, recorded, f"{trial.trained_parameters:,}", words.size(trial.bytes_per_stage), *size)
    shared = plan.asked_by_trials - sum(plan.wanted.values())
    last = f"{shared} of {plan.asked_by_trials} steps are shared between trials; checkpoints to write: "
    lines = [last + words.size(plan.bytes_to_write), *plan.notes]
    if plan.pace:
        lines.append(_pace_text(plan.pace))
    return Group(steps, trials, *lines)


def _pace_text(pace: Pace) -> str:
    if not pace.steps and pace.unmeasured:
        return "time: nothing like these steps is recorded yet"
    more = f", and {pace.unmeasured} steps that nothing like is recorded of" if pace.unmeasured else ""
    return f"time: {pace.seconds / 3600:.2f} h of work one step after the other, as recorded steps took{more}"
