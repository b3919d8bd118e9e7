"""What a sweep wants, what the ledger has, what is to run. Instant: imports neither torch nor ray."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from lmmcl.config.cluster import Cluster
from lmmcl.config.overlaps import Overlap, find_overlaps, refuse_overlaps
from lmmcl.config.sweep import Sweep
from lmmcl.ledger import Ledger
from lmmcl.ledger.index.view import RecordView
from lmmcl.models.hub import HubLMM
from lmmcl.planning.data_notes import overlap_notes
from lmmcl.planning.feature_notes import feature_notes
from lmmcl.planning.fits import NODE_GB, NODE_GPUS, Placement, find_infeasible, refuse, smallest_place
from lmmcl.planning.flops import Hours, estimate_hours
from lmmcl.planning.memory_estimate import asked_memory, stage_memory
from lmmcl.planning.search_plan import SearchPlan, plan_searches
from lmmcl.planning.throughput import Pace, estimate_pace
from lmmcl.planning.trial_notes import trial_notes
from lmmcl.reports import formatting
from lmmcl.reports.tables.name_cells import name_cells
from lmmcl.reports.tables.text_table import TextTable
from lmmcl.search.progress import TrialProgress
from lmmcl.search.run_context import RunContext
from lmmcl.steps import Finetune, Merge, Snapshot, Step
from lmmcl.steps.count_trained import count_trained
from lmmcl.steps.trial import Trial
from lmmcl.terminal import PIPE_WIDTH, safe_console

if TYPE_CHECKING:
    from pandas import DataFrame

KINDS = ("pretrained", "finetune", "snapshot", "merge", "evaluate", "examine")


@dataclass(frozen=True)
class TrialPlan:
    """One trial: how much of it is recorded, and what a stage of it trains, writes and needs.

    `gpu_bytes` is what each GPU of the cluster file holds while a stage trains, `asked_bytes` while a checkpoint is asked; `node`
    (without a cluster file, for models of the hub) the fewest GPUs of a node of eight with 80 GB that a stage fits, and what each
    of them holds; None where eight do not do.
    """

    name: str
    key: str
    axes: dict[str, Any]
    wanted: int
    recorded: int
    trained_parameters: int
    bytes_per_stage: int
    gpu_bytes: dict[str, int] | None = None
    asked_bytes: dict[str, int] | None = None
    node: Placement | None = None
    stopped: dict[str, Any] | None = None


@dataclass(frozen=True, repr=False)
class Plan:
    """Counts of steps by kind; bytes are those that checkpoints still to be computed will write; `notes` what is left out.

    `hours` are GPU hours of what is to run, for models of the hub; `infeasible` says which stages the cluster's GPUs cannot hold.
    `overlaps` are rows that are taught and asked, or taught twice.
    """

    sweep: str
    file: str
    wanted: dict[str, int]
    recorded: dict[str, int]
    to_run: dict[str, int]
    asked_by_trials: int
    bytes_to_write: int
    trials: list[TrialPlan]
    pace: Pace | None = None
    notes: tuple[str, ...] = ()
    hours: Hours | None = None
    infeasible: tuple[str, ...] = ()
    searches: tuple[SearchPlan, ...] = ()
    overlaps: tuple[Overlap, ...] = ()

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to run, or to propose."""
        return not any(self.to_run.values()) and not any(search.to_propose for search in self.searches)

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        trials = [{**asdict(entry), "node": entry.node.to_dict() if entry.node else None} for entry in self.trials]
        searches = [entry.to_dict() for entry in self.searches]
        hours = self.hours.to_dict() if self.hours else None
        return {**asdict(self), "trials": trials, "hours": hours, "searches": searches}

    def __repr__(self) -> str:
        text = io.StringIO()  # a notebook and a terminal that is asked for colours get the same plain text
        safe_console(file=text, width=PIPE_WIDTH, color_system=None, force_jupyter=False).print(plan_table(self))
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())

    def to_frame(self) -> DataFrame:
        """One row a trial: steps wanted and recorded, parameters trained, bytes per stage."""
        import pandas as pd

        return pd.DataFrame(self.to_dict()["trials"])

    def refuse_infeasible(self) -> None:
        """Raises UserError, with what would help, when there are stages that the cluster's GPUs cannot hold."""
        refuse(self.infeasible)

    def refuse_overlaps(self) -> None:
        """Raises UserError when rows are asked that are taught, and the sweep does not allow it."""
        refuse_overlaps(self.overlaps, self.file)


def make_plan(sweep: Sweep, ledger: Ledger, cluster: Cluster | None = None, *, view: RecordView | None = None) -> Plan:
    """Compare the steps of `sweep` with the records of `ledger`.

    With `cluster`, also estimate the memory that each GPU needs, and the time, and say in `infeasible` what does not fit.
    `view` is of the same ledger, where somebody has looked into it already.
    """
    view = view or RecordView(ledger)
    context = RunContext.resolve(sweep, ledger, view.find)
    sweep = context.sweep
    walks = [(walk, walk.steps()) for walk in map(context.of, sweep.trials)]
    steps = {key: step for _, trial_steps in walks for key, step in trial_steps.items()}
    view.prefetch(steps.values())
    recorded = {key for key, step in steps.items() if view.has(step)}
    view.keep()
    wanted = Counter(step.kind for step in steps.values())
    done = Counter(steps[key].kind for key in recorded)
    missing = [step for key, step in steps.items() if key not in recorded]
    sizes = {trial.key: _stage_bytes(trial) for trial in sweep.trials}
    overlaps = tuple(find_overlaps(sweep))
    differing = sweep.stage_overrides.describe()
    notes = (
        *differing,
        *(note for trial in sweep.trials for note in trial_notes(trial)),
        *overlap_notes(overlaps),
        *(feature_notes(missing, cluster) if cluster else ()),
    )
    return Plan(
        sweep=sweep.name,
        file=sweep.file,
        wanted={kind: wanted[kind] for kind in KINDS},
        recorded={kind: done[kind] for kind in KINDS},
        to_run={kind: wanted[kind] - done[kind] for kind in KINDS},
        asked_by_trials=sum(len(trial_steps) for _, trial_steps in walks),
        bytes_to_write=sum(_checkpoint_bytes(step) for step in missing),
        trials=[
            _trial_plan(walk, trial_steps, recorded, sizes[walk.trial.key], cluster) for walk, trial_steps in walks
        ],
        searches=tuple(plan_searches(sweep, ledger, _checkpoint_bytes)),
        pace=estimate_pace(missing, view, cluster) if cluster else None,
        notes=tuple(dict.fromkeys(notes)),
        hours=estimate_hours(missing),
        infeasible=find_infeasible(sweep, cluster, missing, lambda step: True) if cluster else (),
        overlaps=overlaps,
    )


def _trial_plan(
    walk: TrialProgress, steps: Mapping[str, Step], recorded: set[str], stage_bytes: int, cluster: Cluster | None
) -> TrialPlan:
    trial = walk.trial
    return TrialPlan(
        name=trial.name,
        key=trial.key,
        axes=dict(trial.axes),
        wanted=len(steps),
        recorded=len(recorded & steps.keys()),
        trained_parameters=trial.trained_parameters(),
        bytes_per_stage=stage_bytes,
        gpu_bytes=_gpu_bytes(trial, cluster) if cluster and cluster.training.gpus_per_worker else None,
        asked_bytes=_asked_bytes(trial, cluster) if cluster and cluster.evaluation.gpus else None,
        node=_smallest_place(trial) if cluster is None and isinstance(trial.model.plain, HubLMM) else None,
        stopped=walk.stopped.to_dict() if walk.stopped else None,
    )


def _finetunes(trial: Trial) -> list[Finetune]:
    """The first stage, which stands for others that train the same, and those whose settings differ."""
    return [stage.tuned for stage in trial.stages if stage.tuned and stage.number in {1, *trial.by_stage}]


def _smallest_place(trial: Trial) -> Placement | None:
    """Where the stage that needs most fits; None where one fits nowhere."""
    places = [smallest_place(step) for step in _finetunes(trial)]
    possible = [place for place in places if place is not None]
    return max(possible, key=lambda place: (place.gpus, place.memory.total)) if len(possible) == len(places) else None


def _gpu_bytes(trial: Trial, cluster: Cluster) -> dict[str, int]:
    needs = [stage_memory(step, cluster.training) for step in _finetunes(trial)]
    return max(needs, key=lambda need: need.total).to_dict()


def _asked_bytes(trial: Trial, cluster: Cluster) -> dict[str, int]:
    """Of the last stage, by what takes most of it."""
    needs = [asked_memory(step, cluster.evaluation) for step in trial.stages[-1].asked]
    return max(needs, key=lambda need: need.total).to_dict()


def _stage_bytes(trial: Trial) -> int:
    """The most that a stage writes."""
    precision = trial.training.precision
    return max(
        count_trained(settings.recipe, trial.model).stage_bytes(precision) for settings in trial.settings.values()
    )


def _checkpoint_bytes(step: Step) -> int:
    """A delta holds the trained tensors, or the adapter; a merge that does not route rewrites all that its fine-tune changes."""
    match step:
        case Merge() if step.rule.routes:
            return 0
        case Merge():
            tuned = step.tuned
            return count_trained(tuned.recipe, tuned.model).merge_bytes(tuned.training.precision)
        case Snapshot():
            return _checkpoint_bytes(step.finetune)
        case Finetune():
            return count_trained(step.recipe, step.model).stage_bytes(step.training.precision)
    return 0


def plan_table(plan: Plan) -> Group:
    """For the terminal: steps by kind, then a row for each trial."""
    steps = Table(
        "steps",
        "wanted",
        "recorded",
        "to run",
        title=f"{plan.sweep}: {formatting.plural(len(plan.trials), 'trial')}",
        box=SIMPLE_HEAD,
    )
    for kind in KINDS:
        if plan.wanted[kind]:
            steps.add_row(kind, str(plan.wanted[kind]), str(plan.recorded[kind]), str(plan.to_run[kind]))
    more = ["GPU memory (est.)"] if any(trial.gpu_bytes for trial in plan.trials) else []
    more += ["evaluation memory"] if any(trial.asked_bytes for trial in plan.trials) else []
    of_a_node = any(trial.node for trial in plan.trials)
    more += [f"on a node of {NODE_GPUS} × {NODE_GB:g} GB (est.)"] if of_a_node else []
    heading, names = name_cells([trial.name for trial in plan.trials])
    trials = TextTable(box=SIMPLE_HEAD)
    trials.add_column(heading)
    for column in ("steps recorded", "parameters trained", "size on disk", *more):
        trials.add_column(Text(column))
    for trial, name in zip(plan.trials, names, strict=True):
        recorded = f"{trial.recorded}/{trial.wanted}" + (" (stopped)" if trial.stopped else "")
        size = [formatting.size(memory["total"]) for memory in (trial.gpu_bytes, trial.asked_bytes) if memory]
        size += [str(trial.node or "more than 8 GPUs")] if of_a_node else []
        cells = [recorded, f"{trial.trained_parameters:,}", formatting.size(trial.bytes_per_stage), *size]
        trials.add_row(name, *map(Text, cells))
    shared = plan.asked_by_trials - sum(plan.wanted.values())
    last = f"{shared} of {plan.asked_by_trials} steps are shared between trials; checkpoints to write: "
    lines = [last + formatting.size(plan.bytes_to_write), *map(str, plan.searches), *plan.notes]
    if plan.hours:
        lines.append(f"GPU hours: {plan.hours}")
    if plan.pace:
        lines.append(str(plan.pace))
    return Group(steps, trials, *lines)
