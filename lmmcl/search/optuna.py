"""Optuna's proposals for one space, through Ray Tune's OptunaSearch; imported only where a search has points to propose."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search.optuna import OptunaSearch

from lmmcl.config.draws import Choice, Draw
from lmmcl.config.grid_point import Space

WORST = 100.0
"""Points by which a measure is reported worse where a trial ended before it was defined."""


class OptunaSampler:
    """Points of one space. What it proposes depends on the space, its seed, the points before and what came of them.

    A point is known by its number. `earlier` points are taken up by `again`, in their order, before anything is proposed.
    """

    def __init__(self, space: Space, earlier: Sequence[Mapping[str, Any]]) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._objectives = space.settings.objectives
        self._sampler = _Sampler(space)
        self._search = OptunaSearch(
            space={name: _distribution(draw, space, name) for name, draw in space.draws.items()},
            metric=list(self._objectives),  # a list even of one: the reports of early stages lack some
            mode=list(self._objectives.values()),
            points_to_evaluate=[dict(point) for point in earlier],
            sampler=self._sampler,
        )

    def again(self, number: int) -> None:
        """Take up the earlier point of this number."""
        self._search.suggest(str(number))

    def propose(self, number: int, attempt: int) -> dict[str, Any]:
        """A point for this number; another `attempt` gives another one, and the one before is to be dropped."""
        self._sampler.turn = f"{number}/{attempt}"
        return dict(self._search.suggest(_name(number, attempt)) or {})

    def drop(self, number: int, attempt: int) -> None:
        """Forget a proposal that is not taken."""
        self._search.on_trial_complete(_name(number, attempt), error=True)

    def tell(self, number: int, attempt: int, measures: Mapping[str, float] | None, broken_by: float = 0.0) -> None:
        """What came of a point: the measures after its last stage, None when it failed.

        `broken_by` > 0 says by how much the trial was beyond the limit that ended it: Optuna takes such points for worse than
        all that came through, the further beyond the worse.
        """
        if measures is None:
            self._search.on_trial_complete(_name(number, attempt), error=True)
            return
        self._sampler.broken_by = broken_by
        worst = {name: -WORST if mode == "max" else WORST for name, mode in self._objectives.items()}
        self._search.on_trial_complete(_name(number, attempt), {**worst, **measures})


def _name(number: int, attempt: int) -> str:
    return f"{number}/{attempt}" if attempt else str(number)


def _distribution(draw: Draw | Choice, space: Space, name: str) -> BaseDistribution:
    if name in space.choices:
        return CategoricalDistribution(list(space.choices[name]))
    assert isinstance(draw, Draw)
    if draw.kind == "int_uniform":
        return IntDistribution(int(draw.low), int(draw.high))
    return FloatDistribution(draw.low, draw.high, log=draw.kind == "log_uniform")


class _Sampler(BaseSampler):
    """Optuna's TPE, seeded again for each point: a search that was interrupted continues as it would have.

    Numbers are rounded here, so that Optuna learns from the values that were trained.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self.turn = ""
        self.broken_by = 0.0
        self._broken: dict[int, float] = {}

    def infer_relative_search_space(self, study: Any, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(self, study: Any, trial: FrozenTrial, search_space: Any) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: Any, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        value = self._tpe(param_name).sample_independent(study, trial, param_name, param_distribution)
        draw = self._space.draws[param_name]
        return draw.rounded(value) if isinstance(draw, Draw) and param_name not in self._space.choices else value

    def after_trial(self, study: Any, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._broken[trial.number], self.broken_by = self.broken_by, 0.0
        self._tpe("").after_trial(study, trial, state, values)

    def _tpe(self, name: str) -> TPESampler:
        settings = self._space.settings
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return TPESampler(
                seed=zlib.crc32(f"{settings.seed}/{self.turn}/{name}".encode()),
                n_startup_trials=settings.startup,
                constraints_func=lambda trial: (self._broken.get(trial.number, 0.0),),
            )
