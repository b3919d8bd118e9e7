"""The walk in one process, without Ray: for debuggers, notebooks, tests and machines where Ray is not wanted (`--inline`)."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from lmmcl.config.cluster import Cluster
from lmmcl.errors import explain
from lmmcl.ledger import Ledger
from lmmcl.runner.execute import Progress, compute
from lmmcl.runner.preflight import RowsToCheck, examine_rows, report_rows
from lmmcl.runner.scheduler import StepScheduler
from lmmcl.runner.trial_driver import RunListener, walk
from lmmcl.search.proposer import Searching
from lmmcl.steps.trial import Trial
from lmmcl.training.stage_errors import PreemptedError


def inline_scheduler(ledger: Ledger, cluster: Cluster, progress: Progress) -> StepScheduler:
    """Computes each step in the caller."""
    return StepScheduler(ledger, cluster, partial(compute, ledger=ledger, cluster=cluster, progress=progress))


def run_inline(
    trials: Sequence[Trial],
    ledger: Ledger,
    cluster: Cluster,
    watcher: RunListener,
    searching: Searching,
    rows: Sequence[RowsToCheck],
) -> None:
    """Walk `trials`, then those that `searching` proposes, one stage at a time (see `_turns`).

    Raises UserError for `rows` that cannot be read or answered.
    """
    report_rows(*examine_rows(rows), watcher.note)
    watcher.begin()
    scheduler = inline_scheduler(ledger, cluster, lambda key, note: watcher.running({key: note}))
    for walking in _turns(trials, scheduler, watcher, searching):
        try:
            report = next(walking.stages, None)
        except PreemptedError as error:  # SIGTERM came while a stage trained: it has saved, and the run ends as on Ray
            raise KeyboardInterrupt from error
        except Exception as error:  # noqa: BLE001 - one trial's failure is reported and must not end the others
            watcher.trial_failed(walking.trial, explain(error), traceback.format_exc())
            walking.is_over = True
        else:
            walking.is_over = report is None or _is_last(report, walking.trial, watcher, searching)


@dataclass
class _Walking:
    """A trial on its way."""

    trial: Trial
    stages: Iterator[dict[str, Any]]
    is_over: bool = False


def _turns(
    trials: Sequence[Trial], scheduler: StepScheduler, watcher: RunListener, searching: Searching
) -> Iterator[_Walking]:
    """Whose stage is next, until all are over.

    One trial after the other; where an ASHA scheduler compares them, the listed ones take turns, a stage each.
    """
    listed = [_Walking(trial, walk(trial, scheduler, ahead=False)) for trial in trials]
    for group in [listed] if searching.halving else [[turn] for turn in listed]:
        while group := [turn for turn in group if not turn.is_over]:
            yield from group
    for proposer in searching.proposers:
        while (proposal := proposer.next()) is not None:
            number, trial = proposal
            watcher.trial_opened(trial)
            walking = _Walking(trial, walk(trial, scheduler, ahead=False))
            while not walking.is_over:
                yield walking
            proposer.ended(number)


def _is_last(report: Mapping[str, Any], trial: Trial, watcher: RunListener, searching: Searching) -> bool:
    """Pass on what a stage reports; whether the scheduler ends the trial with it."""
    stopped = searching.halving.decide(trial, report) if searching.halving else None
    watcher.stage_done(trial, {**report, "stopped": stopped.to_dict()} if stopped else report)
    return stopped is not None
