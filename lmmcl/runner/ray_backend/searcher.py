"""Searches at Tune's doors: a searcher that hands out listed and proposed trials, and a scheduler that asks `AshaScheduler`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from lmmcl.config.grid_point import Space
from lmmcl.config.search_settings import Stopped
from lmmcl.search.asha import AshaScheduler
from lmmcl.search.proposer import Searching
from lmmcl.steps.trial import Trial

REPORT = "report"
"""The one value that drivers report to Tune: what a stage reports, as JSON."""


class ProposalSearcher(Searcher):
    """Listed trials first, then those of each search in turn, as many at once as `room` tells.

    `trials` are those that are listed, by key; proposed ones are added to it, and told to `opened`. The metrics are not named
    here: Tune would end a run whose early reports lack them.
    """

    def __init__(
        self,
        trials: MutableMapping[str, Trial],
        searching: Searching,
        room: Callable[[], int],
        opened: Callable[[Trial], None],
    ) -> None:
        super().__init__(metric=None, mode=None)
        self._trials, self._proposers, self._room, self._opened = trials, list(searching.proposers), room, opened
        self._listed = list(trials)
        self._live: dict[str, tuple[int, int] | None] = {}
        self._turn = 0

    def __getstate__(self) -> dict[str, Any]:  # Tune saves its searcher; a console and a store do not travel
        return {}

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Tune asks whether the searcher takes its metric; there is none."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """The configuration of the next trial; None where there is no room now."""
        if len(self._live) >= self._room():
            return None
        if self._listed:
            self._live[trial_id] = None
            return {"trial": self._listed.pop(0)}
        for _ in self._proposers:
            place, self._turn = self._turn, (self._turn + 1) % len(self._proposers)
            if (proposal := self._proposers[place].next()) is not None:
                number, trial = proposal
                self._trials[trial.key] = trial
                self._live[trial_id] = (place, number)
                self._opened(trial)
                return {"trial": trial.key, "space": place, "point": json.dumps(self._proposers[place].point(number))}
        return Searcher.FINISHED

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: what came of a trial is read from the store when it ends."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The trial has ended, in whatever way; the store says in which."""
        proposed = self._live.pop(trial_id, None)
        if proposed is not None:
            place, number = proposed
            self._proposers[place].ended(number)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a resumed run reads the store, never Tune's own state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as `save`."""


def proposed_trial(config: Mapping[str, Any], spaces: Sequence[Space]) -> Trial | None:
    """The trial of a Tune configuration that a search proposed; None for one of those that were listed when the run began."""
    if "space" not in config:
        return None
    trial: Trial = spaces[config["space"]].trial(json.loads(config["point"]))
    return trial


class AshaOnTune(FIFOScheduler):
    """`AshaScheduler` as Tune calls it. No metric is named: Tune ends a run whose reports lack one, and stage 0 has none."""

    def __init__(self, halving: AshaScheduler, trials: Mapping[str, Trial]) -> None:
        super().__init__()
        self._halving, self._trials = halving, trials
        self.ended: dict[str, Stopped] = {}

    def __getstate__(self) -> dict[str, Any]:  # Tune saves its scheduler; ours is in the store
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Called with each report of a driver, before anything else sees it."""
        report = json.loads(result[REPORT]) if REPORT in result else {}
        if "stage" not in report:
            return TrialScheduler.CONTINUE
        ours = self._trials[trial.config["trial"]]
        stopped = self._halving.decide(ours, report)
        if stopped is None:
            return TrialScheduler.CONTINUE
        self.ended[ours.key] = stopped
        return TrialScheduler.STOP
