"""What a store holds of a sweep, as pandas DataFrames."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lmmcl.config.sweep import Sweep
from lmmcl.errors import UserError, unknown
from lmmcl.ledger import Ledger
from lmmcl.reports.collect import collect
from lmmcl.reports.recommend import BUDGET
from lmmcl.reports.results import SweepResults
from lmmcl.reports.tables import long_rows
from lmmcl.reports.tables.bound_table import between_bounds
from lmmcl.reports.tables.export import flat_rows
from lmmcl.reports.tables.moments import moment_rows
from lmmcl.reports.tables.order_spread import order_rows
from lmmcl.reports.tables.pairs import pair_rows
from lmmcl.reports.tables.wording_spread import wording_rows
from lmmcl.search.run_context import RunContext

if TYPE_CHECKING:
    from pandas import DataFrame

SCORES = ["trial", "stage", "benchmark", "score", "low", "high", "n", "role", "skill", "trial_key", "checkpoint_key"]
MEASURES = ["trial", "stage", "skill", "measure", "value", "low", "high", "trial_key"]
ANSWER = ["id", "question", "references", "prediction", "score", "metadata"]
SAMPLES = ["trial", "stage", "benchmark", *ANSWER, "trial_key", "checkpoint_key"]
CURVES = ["trial", "stage", "skill", "update", "loss", "learning_rate", "grad_norm", "updates_per_second", "trial_key"]
MOMENTS = ["trial", "stage", "skill", "update", "learning", "held_out_forgetting", "best", "trial_key"]
WORDINGS = ["trial", "stage", "benchmark", "wording", "score", "change", "trial_key"]
PAIRS = ["first", "second", "measure", "value", "better", "better_value", "gain", "interaction", "seeds"]
ORDERS = ["point", "measure", "orders", "mean", "low", "high", "sensitivity"]
BOUNDS = ["trial", "base", "sequence", "alone", "joint", "share_of_joint"]
PROBES = ["trial", "stage", "skill", "update", "probe", "value", "trial_key"]
"""Columns that a table has even where it has no rows."""


class Results:
    """The trials of a sweep, as far as the store holds them; every method returns a new DataFrame.

    The store is read when a table is first asked for; `lmmcl.results` again reads what has been recorded since.
    Tables share the columns `trial` (its name) and `trial_key` (unique), so that they can be merged: for example
    `results.scores().merge(results.trials()[["trial_key", "recipe", "learning_rate"]])`.
    """

    def __init__(self, sweep: Sweep, ledger: Ledger) -> None:
        self.sweep = RunContext.resolve(sweep, ledger).sweep
        self.store = ledger.store
        self._ledger = ledger

    @cached_property
    def _results(self) -> SweepResults:
        return collect(self.sweep, self._ledger)

    def __repr__(self) -> str:
        states = [trial.state for trial in self._results.trials]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        recorded = f"{self._results.recorded} of {self._results.wanted} steps recorded"
        return f"<Results of {self.sweep.name}: {len(states)} trials ({counts}); {recorded} in {self.store}>"

    @property
    def failures(self) -> dict[str, str]:
        """Why trials failed, by trial name; `lmmcl show KEY` has the traceback."""
        return {trial.name: trial.error or "" for trial in self._results.trials if trial.state == "failed"}

    def trials(self) -> DataFrame:
        """One row a trial: the grid point, state, measures at the last stage with `_low` and `_high`, costs, `score/…`, `probe/…`.

        Measures are signed percentage points, scores are points from 0 to 100; `checkpoint_key` is that of the last stage;
        `on_pareto_front` says that no trial learns more and forgets less of the held-out benchmarks.
        """
        import pandas as pd

        frame = pd.DataFrame(flat_rows(self._results)).rename(columns={"key": "trial_key", "name": "trial"})
        last = [trial.last.checkpoint_key if trial.last else None for trial in self._results.trials]
        frame.insert(2, "checkpoint_key", last)
        return frame

    def scores(self) -> DataFrame:
        """One row a trial, stage and benchmark: `score` in points, its bootstrap 95 % interval `low` to `high`, over `n` questions.

        Stage 0 is the pre-trained model. `role` is target (a skill's own benchmark) or held_out, `skill` what the stage taught.
        """
        return _frame(self._scores, SCORES)

    @cached_property
    def _scores(self) -> list[dict[str, Any]]:
        return list(long_rows.score_rows(self.sweep, self._ledger))

    def measures(self) -> DataFrame:
        """One row a trial, stage and measure (`learning`, `held_out_forgetting`, …): `value`, `low` and `high` in points."""
        return _frame(long_rows.measure_rows(self._results), MEASURES)

    def samples(
        self,
        benchmark: str | Iterable[str] | None = None,
        *,
        trial: str | Iterable[str] | None = None,
        stage: int | Iterable[int] | None = None,
    ) -> DataFrame:
        """One row an answered question: what was asked, what counts as right, what was said, and the score in [0, 1].

        Name one or several benchmarks, trials (name, part of a name, key or the beginning of one) and stages, or none for all.
        The `id` pairs the answers of two models to one question. Raises UserError for unknown names and for damaged files.
        """
        benchmarks = _several(benchmark)
        known = list(
            dict.fromkeys(entry.name for one in self.sweep.trials for entry in (*one.benchmarks, *one.wordings))
        )
        for name in benchmarks or ():
            if name not in known:
                raise UserError(unknown("benchmark", name, known), file=self.sweep.file or None)
        trials = _several(trial)
        rows = long_rows.sample_rows(
            self.sweep,
            self._ledger,
            benchmarks=benchmarks,
            trials=None if trials is None else [entry.key for name in trials for entry in self.sweep.seeds(name)],
            stages=[stage] if isinstance(stage, int) else None if stage is None else list(stage),
        )
        return _frame(rows, SAMPLES)

    def curves(self) -> DataFrame:
        """One row a logged update of a stage's training: `update`, `loss`, `learning_rate`, `grad_norm`, `updates_per_second`."""
        return _frame(long_rows.curve_rows(self._results), CURVES)

    def moments(self, budget: float = BUDGET) -> DataFrame:
        """One row a moment inside a stage at which benchmarks were asked: measures as if the stage ended there, and `score/…`.

        `best` marks the moment that learns most with at most `budget` points of held-out forgetting.
        """
        return _frame(moment_rows(self._results, budget), MOMENTS)

    def wordings(self) -> DataFrame:
        """One row a wording of a held-out benchmark after a stage: `score`, and `change` against stage 0; `wording` is empty for
        the benchmark's own."""
        return _frame(wording_rows(self._results), WORDINGS)

    def pairs(self) -> DataFrame:
        """One row a pair of combined mitigations and measure: `gain` over the better single one and `interaction`, with intervals
        corrected over all pairs."""
        return _frame(pair_rows(self._results), PAIRS)

    def orders(self) -> DataFrame:
        """One row a grid point and measure: its mean over orders with its interval, and the order `sensitivity`."""
        return _frame(order_rows(self._results), ORDERS)

    def bounds(self) -> DataFrame:
        """One row a trial that has bounds: mean scores of its skills in the base, after the sequence, alone and jointly trained."""
        return _frame([bound.to_dict() for bound in between_bounds(self._results)], BOUNDS)

    def probes(self) -> DataFrame:
        """One row a trial, stage and value of a probe; `update` is empty for a checkpoint, and set for probes inside a stage."""
        return _frame(long_rows.probe_rows(self._results), PROBES)


def _several(names: str | Iterable[str] | None) -> list[str] | None:
    return None if names is None else [names] if isinstance(names, str) else list(names)


def _frame(rows: Iterable[dict[str, Any]], columns: list[str]) -> DataFrame:
    """The rows as a DataFrame with `columns` first; others that a row has come after them."""
    import pandas as pd

    listed = list(rows)
    others = dict.fromkeys(name for row in listed for name in row if name not in columns)
    return pd.DataFrame(listed, columns=[*columns, *others])
