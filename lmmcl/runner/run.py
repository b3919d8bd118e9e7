"""One command for run, resume, extend and repair: compute what the ledger lacks, then report."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from lmmcl.config.cluster import Cluster
from lmmcl.config.overlaps import check_overlaps
from lmmcl.errors import UserError
from lmmcl.inspection.live_view import stage_steps
from lmmcl.ledger.index.view import RecordView
from lmmcl.ledger.provenance import computed_by
from lmmcl.planning.fits import find_infeasible, refuse
from lmmcl.planning.inputs import check_inputs
from lmmcl.reports import formatting
from lmmcl.reports.collect import collect_results, trial_result
from lmmcl.reports.failures import forget_failures, keep_failure
from lmmcl.reports.results import SweepResults
from lmmcl.runner.display import Display
from lmmcl.runner.engines import check_engine
from lmmcl.runner.heartbeat import saying
from lmmcl.runner.preflight import RowsToCheck, rows_to_check
from lmmcl.runner.reporting.pack_finished import pack_finished, packs
from lmmcl.runner.reporting.report_ahead import start_report_ahead
from lmmcl.search.proposer import Searching, is_finished, make_searching
from lmmcl.search.run_context import RunContext
from lmmcl.steps import Step
from lmmcl.steps.trial import Trial
from lmmcl.tracking.background import BackgroundTrackers
from lmmcl.weights.freed_memory import collection_paused

log = logging.getLogger(__name__)


@dataclass
class Outcome:
    """What came of a run: results of all trials, why some of them failed (by trial key), and what was there before.

    `elsewhere` are steps that other runs recorded in the same store meanwhile.
    """

    results: SweepResults
    failures: dict[str, str] = field(default_factory=dict)
    before: int = 0
    computed: int = 0
    elsewhere: int = 0

    def counts(self) -> str:
        """Who computed what, in a line."""
        others = f", {self.elsewhere} by other runs meanwhile" if self.elsewhere else ""
        return f"{formatting.plural(self.computed, 'step')} computed{others}, {self.before} recorded before"


class ProgressReporter:
    """Shows and tracks what happens: to the terminal at once, to MLflow in the background."""

    def __init__(
        self, context: RunContext, display: Display, tracker: BackgroundTrackers | None, *, beside: bool = False
    ) -> None:
        """`beside`: steps are computed by other processes, so that this one may get the report ready."""
        self._context, self._display, self._tracker, self._ledger = context, display, tracker, context.ledger
        self._may_get_ready = beside
        self._view: RecordView | None = RecordView(self._ledger)
        self.failures: dict[str, str] = {}
        self.steps: dict[str, Step] = {}
        self.before: set[str] = set()
        self.runs = {computed_by()}
        self._view.prefetch(step for trial in context.sweep.trials for step in trial.steps().values())
        for trial in context.sweep.trials:
            self._count(trial)
        self._view = None  # what is looked for later is not there yet

    def _count(self, trial: Trial) -> None:
        """Remember which steps of a trial are recorded before anything of it is computed."""
        new = {key: step for key, step in trial.steps().items() if key not in self.steps}
        self.steps |= new
        records = self._view or self._ledger
        self.before |= {key for key, step in new.items() if records.has(step)}

    def counts(self) -> tuple[int, int]:
        """How many steps this run has recorded, and how many others have since it began."""
        view, wanted = RecordView(self._ledger), [step for key, step in self.steps.items() if key not in self.before]
        view.prefetch(wanted)
        new = [view.find(step) for step in wanted]
        names = [record.fields.get("run") for record in new if record is not None]
        mine = sum(name in self.runs for name in names)
        return mine, len(names) - mine

    def trial_opened(self, trial: Trial) -> None:
        """A search has proposed `trial`."""
        self._context.add(trial)
        self._count(trial)
        self._display.trial_opened(trial)

    def stage_done(self, trial: Trial, report: Mapping[str, Any]) -> None:
        """A stage of `trial` has all its scores."""
        self.runs.add(computed_by())  # what this run is called on Ray is known as long as Ray is there
        computed = any(step.key not in self.before for step in stage_steps(trial.stages[report["stage"]]))
        self._display.stage_done(trial, report, computed=computed)
        self._track(trial)
        if self._may_get_ready and report["stage"]:  # by then all that leads to the first steps is there
            self._may_get_ready = False
            start_report_ahead(self._context.sweep)

    def trial_failed(self, trial: Trial, why: str, details: str) -> None:
        """`trial` ended before its last stage; the traceback is kept in the store."""
        self.runs.add(computed_by())
        self.failures[trial.key] = why
        self._display.trial_failed(trial, why, details)
        try:
            keep_failure(self._ledger, trial, why, details)
        except (UserError, OSError) as error:  # what broke the trial may be this store: the other trials continue
            log.warning("the traceback of %s could not be kept: %s", trial.name, error)
        self._track(trial)

    def phase(self, doing: str) -> None:
        """What the run itself is doing before anything is computed."""
        self._display.phase(doing)

    def note(self, text: str) -> None:
        """Something that a person should know, and that ends nothing."""
        self._display.note(text)

    def begin(self) -> None:
        """What earlier runs left of these trials goes: half-written files, what finished stages kept, and why they failed then."""
        self._ledger.remove_abandoned()
        self._ledger.remove_finished_runs(self.steps)
        forget_failures(self._ledger, self._context.sweep.trials)

    def end(self) -> None:
        """What runs that were killed beside this one left goes, too: the next command may find nothing else to do."""
        try:
            self._ledger.remove_abandoned()
            self._ledger.remove_finished_runs(self.steps)
        except (UserError, OSError) as error:
            log.info("what killed runs left in %s stays until the next run: %s", self._ledger.store, error)

    def running(self, notes: Mapping[str, Mapping[str, Any]]) -> None:
        """What is running now: notes by step key."""
        self.runs.add(computed_by())
        self._display.running(notes)

    def _track(self, trial: Trial) -> None:
        if not self._tracker:
            return
        try:
            result = trial_result(trial, self._ledger, self._context.progress, error=self.failures.get(trial.key))
        except (
            UserError,
            OSError,
        ) as error:  # a store that is away ends no run for MLflow's sake; the end logs all trials
            log.warning("%s will be logged to MLflow later: %s", trial.name, error)
            return
        self._tracker.put(result)


def run_sweep(
    context: RunContext,
    cluster: Cluster,
    *,
    console: Console,
    inline: bool = False,
    tracker: BackgroundTrackers | None = None,
) -> Outcome:
    """Compute every step that the trials of the sweep walk and the ledger lacks, those of the trials that it searches for too.

    A trial that fails does not stop the others. Raises UserError for what this machine lacks, before anything is spent;
    the caller, which writes into the store first, checks that it can be written (`Ledger.check_writable`).
    """
    ledger = context.ledger
    with saying(console, "checking the data, and what this machine can hold"):
        unfinished, searching, rows = _prepare(context, cluster, inline=inline)
    with Display(unfinished, console, searching.coming_stages) as display:
        following = ProgressReporter(context, display, tracker, beside=not inline)
        if unfinished or searching.proposers:
            if inline:
                following.phase("loading libraries")
                from lmmcl.runner.inline import run_inline as run_trials
            else:
                following.phase("starting Ray")
                from lmmcl.runner.ray_backend.backend import run_on_ray as run_trials
            run_trials(unfinished, ledger, cluster, following, searching, rows)
        else:
            following.begin()
    with collection_paused():  # a run's libraries are many objects, and results leave little garbage
        return _outcome(context, cluster, following, console)


def _outcome(context: RunContext, cluster: Cluster, following: ProgressReporter, console: Console) -> Outcome:
    """What came of the run, once nothing more is computed."""
    ledger = context.ledger
    context.refresh()  # other runs may have proposed trials of the same search
    view = RecordView(ledger)
    if packs(cluster, context):
        with saying(console, "packing the records of finished trials"):
            view = RecordView(ledger) if pack_finished(context, view) else view
    results = collect_results(context, following.failures, view=view)
    view.keep(least=1)
    following.end()
    return Outcome(results, following.failures, len(following.before), *following.counts())


def _prepare(
    context: RunContext, cluster: Cluster, *, inline: bool
) -> tuple[list[Trial], Searching, list[RowsToCheck]]:
    """The trials that are not finished, the searches, and the rows that a process with the libraries is still to check.

    All else is known by then to be computable here; raises UserError.
    """
    sweep, ledger = context.sweep, context.ledger
    view = RecordView(ledger)
    seen = context.reading(view.find)
    view.prefetch(seen.steps().values())
    unfinished = [trial for trial in context.listed.trials if not is_finished(trial, view, seen.progress)]
    searching = make_searching(context)
    check_engine(cluster, here=inline or cluster.ray.address == "local")
    steps = (step for trial in unfinished for step in context.of(trial).steps().values())
    refuse(find_infeasible(sweep, cluster, steps, lambda step: not view.has(step), of_all=False))
    proposed = [trial for proposer in searching.proposers for trial in proposer.space.extremes]
    check_inputs([*unfinished, *proposed])
    check_overlaps(sweep, [*unfinished, *proposed])
    steps = (step for trial in [*unfinished, *proposed] for step in context.of(trial).steps().values())
    return unfinished, searching, rows_to_check(steps, view.has)
