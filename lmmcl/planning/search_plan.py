"""What the searches of a sweep will still cost: points to propose, and at most how many steps and bytes they bring."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lmmcl.config.grid_point import Space
from lmmcl.config.sweep import Sweep
from lmmcl.ledger import Ledger
from lmmcl.planning.flops import Hours, estimate_hours
from lmmcl.reports import formatting
from lmmcl.search.search_state import SearchState, search_states
from lmmcl.steps import Step


@dataclass(frozen=True)
class SearchPlan:
    """A search: how far it is, and what each point that is still to be proposed brings at most.

    A point that repeats earlier work brings less, and so does a trial that its budget or a scheduler ends.
    """

    state: SearchState
    to_propose: int
    steps_each: int
    bytes_each: int
    hours: Hours | None = None

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        more = {"to_propose": self.to_propose, "steps_each": self.steps_each, "bytes_each": self.bytes_each}
        return {**self.state.to_dict(), **more, "hours": self.hours.to_dict() if self.hours else None}

    def __str__(self) -> str:
        if not self.to_propose:
            return f"search: {self.state}"
        cost = f"up to {self.steps_each} steps and {formatting.size(self.bytes_each)} for each of the other {self.to_propose}"
        return f"search: {self.state}; {cost}" + (f"; GPU hours of these: {self.hours}" if self.hours else "")


def plan_searches(sweep: Sweep, ledger: Ledger, step_bytes: Callable[[Step], int]) -> list[SearchPlan]:
    """One for each space of `sweep`; `step_bytes` is what a step writes."""
    plans = []
    for space, state in zip(sweep.spaces, search_states(sweep, ledger), strict=True):
        new = _new_steps(space)
        left = state.num_points - state.proposed
        hours = estimate_hours(itertools.chain.from_iterable(itertools.repeat(new, left)))
        plans.append(SearchPlan(state, left, len(new), sum(map(step_bytes, new)), hours))
    return plans


def _new_steps(space: Space) -> list[Step]:
    """The steps of the costliest corner that no other corner has: what a point does not share with other points."""
    corners = [corner.steps() for corner in space.extremes]
    shared = set.intersection(*(set(steps) for steps in corners)) if len(corners) > 1 else set()
    return max(([step for key, step in steps.items() if key not in shared] for steps in corners), key=len)
