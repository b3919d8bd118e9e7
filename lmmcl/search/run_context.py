"""A sweep in one store, resolved once: the trials that it lists or its searches proposed, how far they are, what ends them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lmmcl.config.sweep import Sweep
from lmmcl.ledger import Ledger
from lmmcl.search.progress import Find, SweepProgress, TrialProgress, wanted_steps
from lmmcl.search.search_state import Decisions, decisions_of, with_proposals
from lmmcl.steps import Step
from lmmcl.steps.trial import Trial


@dataclass
class RunContext:
    """What everything about a run works from. `listed` is the sweep as its file says, `sweep` has the proposed trials as well.

    `decisions` are those of the sweep's scheduler, where it has one; `progress` says how far trials walk.
    """

    listed: Sweep
    ledger: Ledger
    sweep: Sweep
    decisions: Decisions | None
    progress: SweepProgress

    @classmethod
    def resolve(cls, sweep: Sweep, ledger: Ledger, find: Find | None = None) -> RunContext:
        """The context as the store has it now; `find` reads a record where something keeps what was read."""
        decisions = decisions_of(sweep, ledger)
        progress = SweepProgress(find or ledger.find, decisions)
        return cls(sweep, ledger, with_proposals(sweep, ledger), decisions, progress)

    def reading(self, find: Find) -> RunContext:
        """The same context, whose progress reads records through `find`."""
        return replace(self, progress=SweepProgress(find, self.decisions))

    def refresh(self) -> None:
        """Look for what other processes have proposed and decided since."""
        self.sweep = with_proposals(self.listed, self.ledger)
        self.progress.refresh()

    def add(self, trial: Trial) -> None:
        """A search of this run has proposed `trial`."""
        if all(known.key != trial.key for known in self.sweep.trials):
            self.sweep = replace(self.sweep, trials=(*self.sweep.trials, trial))

    def of(self, trial: Trial) -> TrialProgress:
        """How far a trial walks."""
        return self.progress.of(trial)

    def steps(self) -> dict[str, Step]:
        """The steps of all stages that the trials walk, by key, parents before children."""
        return wanted_steps(self.sweep, self.progress)
