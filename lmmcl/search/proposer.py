"""What decides while a sweep runs which trials there are and how far they walk: proposers of points, and a scheduler."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from lmmcl.config.grid_point import Space
from lmmcl.config.sweep import Sweep
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.ledger.index.view import RecordView
from lmmcl.search.progress import SweepProgress
from lmmcl.search.run_context import RunContext
from lmmcl.search.search_state import Decisions, Proposals
from lmmcl.steps import Step
from lmmcl.steps.trial import Trial

if TYPE_CHECKING:
    from lmmcl.search.asha import AshaScheduler
    from lmmcl.search.optuna import OptunaSampler

ATTEMPTS = 20
"""How often Optuna is asked again when it proposes a point that it proposed before."""
MOST_FAILURES = 3
"""Trials that may fail in a row before no more points are proposed: what is broken would use all of them up."""
MOST_LISTED = 100_000
LEAST_BROKEN = 1e-6


class HasSteps(Protocol):
    """A ledger as it is now, or a view of it."""

    def has(self, step: Step) -> bool:
        """Whether `step` has been computed."""


@dataclass
class Searching:
    """The searches of one run; without any, every trial is known beforehand and walks until its budget ends it."""

    proposers: Sequence[Proposer] = ()
    halving: AshaScheduler | None = None

    @property
    def remaining(self) -> int:
        """How many trials the proposers will hand out at most."""
        return sum(proposer.remaining for proposer in self.proposers)

    @property
    def coming_stages(self) -> int:
        """How many stages those trials have."""
        return sum(proposer.remaining * len(proposer.space.extremes[0].stages) for proposer in self.proposers)


def make_searching(context: RunContext) -> Searching:
    """The searches of a sweep that are not finished, and its scheduler.

    Raises UserError when a point is to be proposed and Optuna is not installed.
    """
    every = [Proposer(space, context.ledger, context.progress) for space in context.sweep.spaces]
    proposers = [proposer for proposer in every if not proposer.finished]
    if proposers:
        check_optuna(context.sweep)
    return Searching(proposers, _make_asha(context, context.decisions) if context.decisions else None)


def _make_asha(context: RunContext, decisions: Decisions) -> AshaScheduler:
    """The scheduler, with the results of finished trials: they compete with those that are still to be walked."""
    from lmmcl.search.asha import AshaScheduler

    sweep = context.sweep
    stages = [len(trial.stages) - 1 for trial in [*sweep.trials, *(space.extremes[0] for space in sweep.spaces)]]
    halving = AshaScheduler(decisions, max(stages))
    view = RecordView(context.ledger)
    finished = {trial.key for trial in sweep.trials if is_finished(trial, view, context.progress)}
    halving.learn(sweep.trials, context.progress, finished)
    return halving


def check_optuna(sweep: Sweep) -> None:
    """Raises UserError when Optuna is not installed."""
    if importlib.util.find_spec("optuna") is None:
        raise UserError(
            "needs the package optuna: pip install 'lmmcl[optuna]' (or remove the search and list the values)",
            file=sweep.file,
            place="search.optuna",
        )


def is_finished(trial: Trial, records: HasSteps, walks: SweepProgress) -> bool:
    """Whether everything that a trial walks is recorded."""
    return all(records.has(step) for step in walks.of(trial).steps().values())


class Proposer:
    """The points of one space as trials: those that were proposed before and are not finished, then new ones."""

    def __init__(self, space: Space, ledger: Ledger, walks: SweepProgress) -> None:
        self.space, self._ledger, self._walks = space, ledger, walks
        self._proposals = Proposals(space, ledger)
        self._next = 0
        self._open: dict[int, Trial] = {}
        self._attempts: dict[int, int] = {}
        self._failed_in_a_row = 0
        self._seeker: OptunaSampler | None = None

    @property
    def finished(self) -> bool:
        """Whether every point was proposed, and walked."""
        return not self._proposals.left and not self.remaining

    @property
    def remaining(self) -> int:
        """How many trials will be handed out at most."""
        known = self._proposals.known[self._next :]
        return self._proposals.left + sum(
            not is_finished(proposal.trial, self._ledger, self._walks) for proposal in known
        )

    def next(self) -> tuple[int, Trial] | None:
        """The next trial to walk, with the number of its point; None when there are no more."""
        if self._seeker is None:
            self._seeker = self._made_seeker()
        while self._next < len(self._proposals.known):
            number = self._next
            self._seeker.again(number)
            self._next += 1
            trial = self._proposals.known[number].trial
            if not is_finished(trial, self._ledger, self._walks):
                self._open[number] = trial
                return number, trial
            self._tell(self._seeker, number)
        if not self._proposals.left or self._failed_in_a_row >= MOST_FAILURES:
            return None
        return self._propose()

    def point(self, number: int) -> dict[str, Any]:
        """The point of this number, by drawn axis."""
        return dict(self._proposals.known[number].point)

    def ended(self, number: int) -> None:
        """The walk of a trial that was handed out is over: tell Optuna what the store says came of it."""
        trial = self._open.pop(number)
        succeeded = is_finished(trial, self._ledger, self._walks)
        self._failed_in_a_row = 0 if succeeded else self._failed_in_a_row + 1
        assert self._seeker is not None, "a trial was handed out"
        self._tell(self._seeker, number)

    def _propose(self) -> tuple[int, Trial] | None:
        """A new point, kept in the store before anybody walks it."""
        assert self._seeker is not None, "`next` made it"
        number = self._next
        seen = [proposal.point for proposal in self._proposals.known]
        for attempt in range(ATTEMPTS):
            point = self._seeker.propose(number, attempt)
            if point not in seen:
                self._attempts[number] = attempt
                return self._take(point, expected=True)
            self._seeker.drop(number, attempt)
        left = [point for point in self.space.enumerate_points(MOST_LISTED) if point not in seen]
        return self._take(random.Random(number).choice(left), expected=False) if left else None

    def _take(self, point: Mapping[str, Any], *, expected: bool) -> tuple[int, Trial]:
        """Keep a point as the next; `expected` where Optuna proposed it."""
        number, kept = self._next, self._proposals.add(point)
        self._next, self._open[number] = number + 1, kept.trial
        if not expected or kept.point != point:  # else another run was first, with a point of its own
            self._seeker = self._made_seeker()
        return number, kept.trial

    def _made_seeker(self) -> OptunaSampler:
        """Optuna, told of all points so far and of what came of those that are not open."""
        from lmmcl.search.optuna import OptunaSampler

        self._attempts.clear()
        seeker = OptunaSampler(self.space, [proposal.point for proposal in self._proposals.known])
        for number in range(self._next):
            seeker.again(number)
            if number not in self._open:
                self._tell(seeker, number)
        return seeker

    def _tell(self, seeker: OptunaSampler, number: int) -> None:
        trial = self._proposals.known[number].trial
        stopped, measures = self._walks.of(trial).stopped, self._walks.measures(trial)
        attempt = self._attempts.get(number, 0)
        if stopped and len(measures) > stopped.stage:
            broken_by = max(abs(stopped.value - stopped.limit), LEAST_BROKEN)
            seeker.tell(number, attempt, measures[stopped.stage], broken_by)
        else:
            seeker.tell(number, attempt, measures[-1] if len(measures) == len(trial.stages) else None)
