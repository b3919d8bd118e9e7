"""ASHA over stages: Ray Tune's scheduler decides, the store remembers, and what is recorded already competes.

A trial is compared with those of the same model and order that reached the same stage before it. What a decision says
depends on which trials were there first; once made, it stays, so a rerun or a resumed run ends the same trials.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from lmmcl.config.search_settings import Stopped
from lmmcl.search.progress import SweepProgress
from lmmcl.search.search_state import Decisions
from lmmcl.steps.trial import Trial


@dataclass(frozen=True)
class _Named:
    """All that ASHA wants to know of a trial."""

    trial_id: str


class AshaScheduler:
    """Decides after each stage whether a trial continues."""

    def __init__(self, decisions: Decisions, longest: int) -> None:
        self._decisions, self._settings, self._longest = decisions, decisions.settings, longest
        self._groups: dict[tuple[str, str], ASHAScheduler] = {}
        self._added: set[str] = set()
        self._seen: dict[tuple[Any, ...], dict[str, float]] = defaultdict(dict)

    def learn(self, trials: Iterable[Trial], walks: SweepProgress, finished: Collection[str]) -> None:
        """Have what is recorded compete: all of the trials `finished` (keys), and what was decided on of the others."""
        for trial in trials:
            for stage, measures in enumerate(walks.measures(trial)[: len(walks.of(trial).stages)]):
                if trial.key in finished or self._decisions.may_go_on(trial, stage) is not None:
                    self._ask(trial, stage, measures)

    def decide(self, trial: Trial, report: Mapping[str, Any]) -> Stopped | None:
        """Whether this report is the last of `trial`. A trial that its budget ends here competes, and is not decided on."""
        stage, before = report["stage"], self._limit(trial, report["stage"])
        goes_on = self._ask(trial, stage, report)
        if goes_on is None or "stopped" in report:
            return None
        known = self._decisions.may_go_on(trial, stage)
        if known is None:
            known = self._decisions.add(trial, stage, report[self._settings.metric], before, goes_on=goes_on)
        return None if known else self._decisions.stopped(trial)

    def _ask(self, trial: Trial, stage: int, measures: Mapping[str, Any]) -> bool | None:
        """What ASHA says of a stage; None where there is nothing to decide: no rung, no value, or the last stage."""
        metric = self._settings.metric
        if metric not in measures or stage not in self._settings.rungs(len(trial.stages) - 1):
            return None
        scheduler, named, nobody = self._scheduler(trial), cast(Any, _Named(trial.key)), cast(Any, None)
        if trial.key not in self._added:
            self._added.add(trial.key)
            scheduler.on_trial_add(nobody, named)
        self._seen[(*_group(trial), stage)][trial.key] = measures[metric]
        decision = scheduler.on_trial_result(nobody, named, {"stage": stage, metric: measures[metric]})
        return decision != TrialScheduler.STOP

    def _scheduler(self, trial: Trial) -> ASHAScheduler:
        group, settings = _group(trial), self._settings
        if group not in self._groups:
            self._groups[group] = ASHAScheduler(
                time_attr="stage",
                metric=settings.metric,
                mode=settings.direction,
                max_t=self._longest,
                grace_period=settings.grace_stages,
                reduction_factor=settings.reduction_factor,
            )
        return self._groups[group]

    def _limit(self, trial: Trial, stage: int) -> float | None:
        """The value that a trial must reach at a stage, from those that were there before it; for display only."""
        seen = [value for key, value in self._seen[(*_group(trial), stage)].items() if key != trial.key]
        share = 100 * (1 - 1 / self._settings.reduction_factor)
        at = share if self._settings.direction == "max" else 100 - share
        return float(np.percentile(seen, at)) if seen else None


def _group(trial: Trial) -> tuple[str, str]:
    """Trials that can be compared stage by stage: one model, one order of skills."""
    return (trial.model.name, trial.order)
