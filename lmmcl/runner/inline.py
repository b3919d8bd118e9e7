"""The walk in one process, without Ray: for debuggers, tests and machines where Ray is not wanted (`--inline`)."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lmmcl.config.cluster import Cluster
from lmmcl.errors import explain
from lmmcl.ledger import Ledger, Record
from lmmcl.runner.execute import Progress, compute_checkpoint, compute_scores
from lmmcl.runner.in_flight import Flights
from lmmcl.runner.sharing import SharedLauncher
from lmmcl.runner.trial_driver import RunListener, walk
from lmmcl.search.proposer import Searching
from lmmcl.steps import Checkpoint, ScoringStep
from lmmcl.steps.trial import Trial
from lmmcl.training.stage_errors import PreemptedError

if TYPE_CHECKING:
    from lmmcl.search.asha import AshaScheduler


class InlineLauncher:
    """Computes each step in the caller."""

    def __init__(self, ledger: Ledger, cluster: Cluster, progress: Progress) -> None:
        self._ledger, self._cluster, self._progress = ledger, cluster, progress

    async def checkpoint(self, step: Checkpoint) -> None:
        compute_checkpoint(step, self._ledger, self._cluster, self._progress)

    async def scores(self, steps: Sequence[ScoringStep]) -> None:
        compute_scores(steps, self._ledger, self._cluster, self._progress)


class InlineSteps:
    """Records from this process."""

    def __init__(self, ledger: Ledger, cluster: Cluster, progress: Progress) -> None:
        self._flights = Flights(ledger, SharedLauncher(InlineLauncher(ledger, cluster, progress), ledger, cluster))

    def ensure_all(self, steps: Sequence[ScoringStep]) -> list[Record]:
        """See `Steps.ensure_all`."""
        return asyncio.run(self._flights.ensure_scores(steps))

    def begin(self, step: Checkpoint) -> None:
        """Nothing: in one process there is no room beside what is asked for now."""


def run_inline(
    trials: Sequence[Trial], ledger: Ledger, cluster: Cluster, watcher: RunListener, searching: Searching
) -> None:
    """Walk `trials`, then those that `searching` proposes, one after the other.

    With a scheduler the listed trials take turns, a stage each, so that it has something to compare.
    """
    steps = InlineSteps(ledger, cluster, lambda key, shown: watcher.running({key: shown}))
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


def _advance(
    trial: Trial, stages: Iterator[dict[str, Any]], watcher: RunListener, halving: AshaScheduler | None
) -> bool:
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
