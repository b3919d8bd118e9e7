"""One command for run, resume, extend and repair: compute what the ledger lacks, then report."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from lmmcl.errors import explain
from lmmcl.ledger import Ledger
from lmmcl.reports.collect import collect, trial_result
from lmmcl.reports.results import SweepResults
from lmmcl.runner.display import Display
from lmmcl.runner.inputs import check_inputs
from lmmcl.runner.tracking_thread import BackgroundTracker
from lmmcl.spec.cluster import Cluster
from lmmcl.spec.sweep import Sweep
from lmmcl.spec.trial import Trial


@dataclass
class Outcome:
    """What came of a run: results of all trials, and why some of them failed (by trial key)."""

    results: SweepResults
    failures: dict[str, str] = field(default_factory=dict)


class Following:
    """Shows and tracks what happens: to the terminal at once, to MLflow in the background."""

    def __init__(self, display: Display, tracker: BackgroundTracker | None, ledger: Ledger) -> None:
        self._display, self._tracker, self._ledger = display, tracker, ledger
        self.failures: dict[str, str] = {}

    def stage_done(self, trial: Trial, report: Mapping[str, Any]) -> None:
        """A stage of `trial` has all its scores."""
        self._display.stage_done(trial, report)
        self._track(trial)

    def trial_failed(self, trial: Trial, why: str, details: str) -> None:
        """`trial` ended before its last stage; the traceback is kept in the store."""
        self._ledger.keep_text(f"failures/{trial.key}.txt", f"{trial.name}\n{why}\n\n{details}")
        self.failures[trial.key] = why
        self._display.trial_failed(trial, why, details)
        self._track(trial)

    def running(self, notes: Mapping[str, Mapping[str, Any]]) -> None:
        """What is running now: notes by step key."""
        self._display.running(notes)

    def _track(self, trial: Trial) -> None:
        if self._tracker:
            self._tracker.put(trial_result(trial, self._ledger, error=self.failures.get(trial.key)))


def run_sweep(
    sweep: Sweep,
    ledger: Ledger,
    cluster: Cluster,
    *,
    console: Console,
    inline: bool = False,
    tracker: BackgroundTracker | None = None,
) -> Outcome:
    """Compute every step of `sweep` that `ledger` lacks. A trial that fails does not stop the others."""
    unfinished = [trial for trial in sweep.trials if any(ledger.find(step) is None for step in trial.steps().values())]
    check_inputs(unfinished)
    ledger.check_writable()
    ledger.remove_abandoned()
    with Display(unfinished, console) as display:
        following = Following(display, tracker, ledger)
        if unfinished:
            _run(unfinished, ledger, cluster, following, inline=inline)
    return Outcome(collect(sweep, ledger, following.failures), following.failures)


def _run(trials: Sequence[Trial], ledger: Ledger, cluster: Cluster, following: Following, *, inline: bool) -> None:
    if not inline:
        from lmmcl.runner.tune import run_on_ray

        run_on_ray(trials, ledger, cluster, following)
        return
    from lmmcl.runner.inline import InlineSteps
    from lmmcl.runner.trial import run_trial

    steps = InlineSteps(ledger, cluster, lambda key, shown: following.running({key: shown}))
    for trial in trials:
        try:
            run_trial(trial, steps, lambda report, trial=trial: following.stage_done(trial, report))  # type: ignore[misc]
        except Exception as error:  # noqa: BLE001 - one trial's failure is told and must not end the others
            following.trial_failed(trial, explain(error), traceback.format_exc())
