"""How far trials walk, as far as the store tells: to their ends, or to the stage after which a budget or a scheduler ends them.

Nothing is kept of a budget: the scores that are recorded and the rule in the sweep file say it again each time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmmcl.config.search_settings import Stopped, budget_broken
from lmmcl.config.sweep import Sweep
from lmmcl.ledger import Record
from lmmcl.measures import Run, all_measures
from lmmcl.search.search_state import Decisions
from lmmcl.steps import Finetune, Step
from lmmcl.steps.trial import Stage, Trial

Find = Callable[[Any], Record | None]


@dataclass(frozen=True)
class TrialProgress:
    """The stages that a trial walks: all of them, or those up to the one after which it was `stopped`."""

    trial: Trial
    stages: tuple[Stage, ...]
    stopped: Stopped | None = None

    def steps(self) -> dict[str, Step]:
        """All steps that these stages need, by key, parents before children."""
        return self.trial.steps(self.stages)


class SweepProgress:
    """The walks of trials. What is recorded is read once; asked again, it tells what has come since.

    `find` reads a record; `decisions` are those of the sweep's scheduler, where it has one.
    """

    def __init__(self, find: Find, decisions: Decisions | None = None) -> None:
        self._find, self._decisions = find, decisions
        self._scores: dict[str, dict[tuple[int, str], Any]] = {}
        self._measures: dict[str, list[Mapping[str, float]]] = {}

    def refresh(self) -> None:
        """Look for decisions that another process has made."""
        if self._decisions:
            self._decisions.read()

    def of(self, trial: Trial) -> TrialProgress:
        """How far `trial` walks."""
        stopped = self._stopped(trial)
        stages = trial.stages[: stopped.stage + 1] if stopped else trial.stages
        return TrialProgress(trial, tuple(trial.truncate(stage, self._updates) for stage in stages), stopped)

    def _updates(self, tuned: Finetune) -> int | None:
        """How many updates a recorded fine-tune had."""
        record = self._find(tuned)
        return None if record is None else int(record["updates"])

    def _stopped(self, trial: Trial) -> Stopped | None:
        """The first reason to end before the last stage; a rule that only the last stage breaks ends nothing."""
        candidates = [self._decisions.stopped(trial)] if self._decisions else []
        if trial.stop:
            measured = enumerate(self.measures(trial)[: len(trial.stages) - 1])
            candidates.append(
                next((hit for stage, values in measured if (hit := budget_broken(trial.stop, stage, values))), None)
            )
        return min((stopped for stopped in candidates if stopped), key=lambda stopped: stopped.stage, default=None)

    def measures(self, trial: Trial) -> list[Mapping[str, float]]:
        """The measures after each stage, up to the first that lacks a score."""
        scores, measures = self._scores.setdefault(trial.key, {}), self._measures.setdefault(trial.key, [])
        targets, held_out = trial.targets, tuple(b.name for b in trial.held_out)
        for stage in trial.stages[len(measures) :]:
            records = {step.benchmark.name: self._find(step) for step in stage.evaluations}
            if any(record is None for record in records.values()):
                break
            for name, record in records.items():
                assert record is not None
                scores[stage.number, name] = 100.0 * float(np.asarray(record["sample_scores"], float).mean())
            measured = all_measures(Run(targets, held_out, scores), stage.number)
            measures.append({name: float(value) for name, value in measured.items()})
        return measures


def wanted_steps(sweep: Sweep, walks: SweepProgress) -> dict[str, Step]:
    """The steps of all stages that the trials of `sweep` walk, by key, parents before children."""
    return {key: step for trial in sweep.trials for key, step in walks.of(trial).steps().items()}
