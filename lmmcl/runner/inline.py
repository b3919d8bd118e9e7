"""The walk in one process, without Ray: for debuggers, tests and machines where Ray is not wanted (`--inline`)."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from lmmcl.config.cluster import Cluster
from lmmcl.errors import explain
from lmmcl.ledger import Ledger
from lmmcl.runner.execute import Progress, compute
from lmmcl.runner.scheduler import StepScheduler
from lmmcl.runner.trial_driver import Watcher, walk
from lmmcl.search.proposer import Searching
from lmmcl.steps.trial import Trial
from lmmcl.training.stage_errors import PreemptedError

if TYPE_CHECKING:
    from lmmcl.search.asha import Halving


def inline_scheduler(ledger: Ledger, cluster: Cluster, progress: Progress) -> StepScheduler:
    """Computes each step in the caller."""
    return StepScheduler(ledger, cluster, partial(compute, ledger=ledger, cluster=cluster, progress=progress))


def run_inline(
    trials: Sequence[Trial], ledger: Ledger, cluster: Cluster, watcher: Watcher, searching: Searching
) -> None:
    """Walk `trials`, then those that `searching` proposes, one after the other.

    With a scheduler the listed trials take turns, a stage each, so that it has something to compare.
    """
    steps = inline_scheduler(ledger, cluster, lambda key, shown: watcher.running({key: shown}))
    halving = searching.halving
    walks = [(trial, walk(trial, steps, ahead=False)) for trial in trials]
    while walks:
        turn, walks = (walks, []) if halving else (walks[:1], walks[1:])
        going = [pair for pair in turn if _advance(*pair, watcher, halving)]
        walks = [*going, *walks]
    for proposer in searching.proposers:
        while (found := proposer.next()) is not None:
            number, trial = found
            watcher.trial_opened(trial)
            stages = walk(trial, steps, ahead=False)
            while _advance(trial, stages, watcher, halving):
                pass
            proposer.ended(number)


def _advance(trial: Trial, stages: Iterator[dict[str, Any]], watcher: Watcher, halving: Halving | None) -> bool:
    """One more stage of a walk; whether there may be another."""
    try:
        report = next(stages, None)
    except PreemptedError as error:  # SIGTERM came while a stage trained: it has saved, and the run ends as on Ray
        raise KeyboardInterrupt from error
    except Exception as error:  # noqa: BLE001 - one trial's failure is told and must not end the others
        watcher.trial_failed(trial, explain(error), traceback.format_exc())
        return False
    if report is None:
        return False
    ended = halving.decide(trial, report) if halving else None
    watcher.stage_done(trial, {**report, "stopped": ended.to_dict()} if ended else report)
    return ended is None
