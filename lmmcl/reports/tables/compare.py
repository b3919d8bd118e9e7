"""Two trials side by side: what differs, benchmark by benchmark, and whether the difference is more than luck."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from lmmcl.config.sweep import Sweep
from lmmcl.config.trial_names import without_seed
from lmmcl.errors import UserError
from lmmcl.evaluation.matrix import ScoreMatrix
from lmmcl.ledger import Ledger
from lmmcl.measures import BELOW_0_FORGOT
from lmmcl.reports import formatting
from lmmcl.reports.collect import score_matrix
from lmmcl.reports.failures import kept_failures
from lmmcl.reports.paired import ALPHA, Estimate, estimate, holm, sign_flip_p
from lmmcl.reports.report_records import Reading
from lmmcl.reports.results import MEASURES, identity
from lmmcl.search.progress import SweepProgress
from lmmcl.search.run_context import RunContext
from lmmcl.steps.trial import Trial


@dataclass(frozen=True)
class Difference:
    """A measure or benchmark of both trials in points, and second − first with its interval and p-values.

    `p` is of this row alone; `p_holm` is corrected for the number of benchmarks, and the same as `p` for a measure.
    """

    name: str
    first: float
    second: float
    value: float
    low: float
    high: float
    p: float
    p_holm: float

    @property
    def significant(self) -> bool:
        """Whether it differs significantly from 0, at 5 %."""
        return self.p_holm < ALPHA


@dataclass(frozen=True)
class Comparison:
    """Second − first after their last stages, over `seeds` training seeds (1: nothing is known of other seeds)."""

    first: str
    second: str
    stages: tuple[int, int]
    seeds: int
    measures: list[Difference]
    benchmarks: list[Difference]

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def compare(
    first: Sequence[ScoreMatrix], second: Sequence[ScoreMatrix], samples: int = 2000
) -> dict[str, list[Difference]]:
    """{"measures": …, "benchmarks": …} of two trials at their last stages; one matrix a seed, paired by place.

    Measures are compared where both trials were taught and asked the same. A benchmark has a percentile interval and an exact
    or drawn permutation p-value; over several seeds, and for measures, both come from the variances over questions and seeds.
    """
    pairs = list(zip(first, second, strict=True))
    alike = all(set(a.order) == set(b.order) and set(a.held_out) == set(b.held_out) for a, b in pairs)
    names = [name for name in pairs[0][0].benchmarks if all(_asked(a, name) == _asked(b, name) != 0 for a, b in pairs)]
    benchmarks = [_benchmark(name, pairs, samples) for name in names]
    corrected = holm([difference.p for difference in benchmarks])
    return {
        "measures": _measures(pairs, samples) if alike else [],
        "benchmarks": [replace(difference, p_holm=p) for difference, p in zip(benchmarks, corrected, strict=True)],
    }


Pairs = Sequence[tuple[ScoreMatrix, ScoreMatrix]]


def _asked(matrix: ScoreMatrix, name: str) -> int:
    """How many questions of a benchmark were answered at the last stage."""
    stage = matrix.stages[-1]
    return len(matrix.samples(stage, name)) if matrix.has(stage, name) else 0


def _measures(pairs: Pairs, samples: int) -> list[Difference]:
    values = [(a.summary(), b.summary()) for a, b in pairs]
    draws = [(a.draws(samples=samples), b.draws(samples=samples)) for a, b in pairs]
    differences = []
    for name in MEASURES:
        if all(name in a and name in b for a, b in values):
            estimated = estimate([b[name] - a[name] for a, b in values], [b[name] - a[name] for a, b in draws])
            differences.append(_difference(name, [a[name] for a, _ in values], [b[name] for _, b in values], estimated))
    return differences


def _benchmark(name: str, pairs: Pairs, samples: int) -> Difference:
    scores = [(a.score(a.stages[-1], name), b.score(b.stages[-1], name)) for a, b in pairs]
    draws = [b.score_draws(samples=samples)[name] - a.score_draws(samples=samples)[name] for a, b in pairs]
    estimated = estimate([b - a for a, b in scores], draws)
    if len(pairs) == 1:
        a, b = pairs[0]
        low, high = np.quantile(draws[0], [ALPHA / 2, 1 - ALPHA / 2])
        p = sign_flip_p(b.samples(b.stages[-1], name) - a.samples(a.stages[-1], name))
        estimated = Estimate(estimated.value, float(low), float(high), p)
    return _difference(name, [a for a, _ in scores], [b for _, b in scores], estimated)


def _difference(name: str, first: Sequence[float], second: Sequence[float], estimated: Estimate) -> Difference:
    return Difference(
        name,
        float(np.mean(first)),
        float(np.mean(second)),
        estimated.value,
        estimated.low,
        estimated.high,
        estimated.p,
        estimated.p,
    )


def compare_trials(sweep: Sweep, ledger: Ledger, first: str, second: str, *, alone: bool = False) -> Comparison:
    """Compare two trials of `sweep`, named by key (or its beginning) or by name, or a part of it, with or without
    its seed.

    Where the sweep has both grid points at several seeds, all finished seeds that both have are used, unless `alone`. Raises
    UserError for a name that no trial has, one trial twice, and trials without a common stage or benchmark.
    """
    read = Reading(ledger)
    pairing = Pairing(RunContext.resolve(sweep, ledger, read.find), read)
    one, other = _named(pairing.sweep, first), _named(pairing.sweep, second)
    if one.key == other.key:
        raise UserError(f"{first!r} and {second!r} are the same trial", file=sweep.file)
    return pairing.compare(one, other, alone=alone)


class Pairing:
    """The trials of one sweep to compare with each other; the scores of each are read and resampled once."""

    def __init__(self, context: RunContext, read: Reading) -> None:
        self.sweep, self._context, self._read = context.sweep, context, read
        self._matrices: dict[str, ScoreMatrix] = {}
        self._by_point: dict[str, list[Trial]] = {}
        for trial in self.sweep.trials:
            self._by_point.setdefault(_point(trial), []).append(trial)

    def compare(self, one: Trial, other: Trial, *, alone: bool = False) -> Comparison:
        """See `compare_trials`, of two trials that are not the same."""
        pairs = [(one, other)] if alone else self._seeds(one, other)
        matrices = [(self._matrix(a), self._matrix(b)) for a, b in pairs]
        self._check(one, other, matrices[0])
        stages = (matrices[0][0].stages[-1], matrices[0][1].stages[-1])
        differences = compare([a for a, _ in matrices], [b for _, b in matrices])
        if not differences["benchmarks"]:
            raise UserError(f"{one.name} and {other.name} have no question in common", file=self.sweep.file)
        names = [without_seed(trial.name) if len(pairs) > 1 else trial.name for trial in (one, other)]
        return Comparison(names[0], names[1], stages, len(pairs), **differences)

    def _check(self, one: Trial, other: Trial, matrices: tuple[ScoreMatrix, ScoreMatrix]) -> None:
        """Raises UserError where one of them has no score, or they have finished other stages."""
        walks, ledger = self._context.progress, self._context.ledger
        for trial, matrix in zip((one, other), matrices, strict=True):
            if not matrix.stages:
                missing = _ended(trial, walks, ledger) or f"{trial.name} has no score yet; see `lmmcl status`"
                raise UserError(missing, file=self.sweep.file)
        stages = [matrix.stages[-1] for matrix in matrices]
        if stages[0] != stages[1]:
            ended = [why for trial in (one, other) if (why := _ended(trial, walks, ledger))]
            raise UserError(
                f"{one.name} has finished stage {stages[0]}, {other.name} stage {stages[1]}. "
                + ("; ".join(ended) or "Finish the sweep before comparing."),
                file=self.sweep.file,
            )

    def _matrix(self, trial: Trial) -> ScoreMatrix:
        if trial.key not in self._matrices:
            self._matrices[trial.key] = score_matrix(trial, self._read, self._context.of(trial).stages)
        return self._matrices[trial.key]

    def _seeds(self, one: Trial, other: Trial) -> list[tuple[Trial, Trial]]:
        """Both grid points at every seed where both are finished, the two that were named first; those alone if one is not."""
        points = [{trial.seed: trial for trial in self._by_point[_point(named)]} for named in (one, other)]
        if _point(one) == _point(other) or one.seed != other.seed:
            return [(one, other)]
        shared = sorted(set(points[0]) & set(points[1]), key=lambda seed: (seed != one.seed, seed))
        pairs = [(points[0][seed], points[1][seed]) for seed in shared]
        done = [pair for pair in pairs if all(len(self._matrix(trial).stages) == len(trial.stages) for trial in pair)]
        return done if (one, other) in done else [(one, other)]


def _named(sweep: Sweep, wanted: str) -> Trial:
    """The trial of this name, part of a name or key; of a name without its seed, the first seed."""
    return sweep.seeds(wanted)[0]


def _ended(trial: Trial, walks: SweepProgress, ledger: Ledger) -> str | None:
    """Why a trial came no further, where it is known: it was stopped, or failed when it was last run."""
    walk = walks.of(trial)
    if walk.stopped:
        return f"{trial.name} was stopped ({walk.stopped})"
    failed = kept_failures(ledger, [trial]).get(trial.key)
    return f"{trial.name} failed: {failed.line} (`lmmcl show {trial.key}` shows details)" if failed else None


def _point(trial: Trial) -> str:
    return identity(sorted((name, identity(value)) for name, value in trial.axes.items() if name != "seed"))


def comparison_table(comparison: Comparison) -> Group:
    """For the terminal: measures, then benchmarks, significant differences in bold."""
    parts = [f"first   {comparison.first}\nsecond  {comparison.second}"]
    tables = [_table("measure", comparison.measures, corrected=False)] if comparison.measures else []
    tables.append(_table("benchmark", comparison.benchmarks, corrected=len(comparison.benchmarks) > 1))
    seeds = (
        f"Over {comparison.seeds} seeds: intervals cover the sampling of questions and of seeds."
        if comparison.seeds > 1
        else "One seed: intervals cover the sampling of questions, not of seeds."
    )
    signs = (
        f"forgetting {BELOW_0_FORGOT}; " if any("forgetting" in measure.name for measure in comparison.measures) else ""
    )
    note = f"Points after stage {comparison.stages[0]}; {signs}brackets are 95 % intervals. {seeds}"
    return Group(*map(escape, parts), *tables, note, escape(sentence(comparison)))


def _table(kind: str, rows: Sequence[Difference], *, corrected: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(kind)
    for heading in ("first", "second", "second − first", "p", *(["p (Holm)"] if corrected else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    show = formatting.points if kind == "measure" else lambda value: f"{value:.1f}"
    for row in rows:
        cells = [formatting.label(row.name), show(row.first), show(row.second)]
        cells += [formatting.points_range(row.value, (row.low, row.high)), formatting.p_value(row.p)]
        cells += [formatting.p_value(row.p_holm)] if corrected else []
        table.add_row(*map(escape, cells), style="bold" if row.significant else "")
    return table


def sentence(comparison: Comparison) -> str:
    """The comparison in words: learning and held-out forgetting, then how many benchmarks differ."""
    by_measure: Mapping[str, Difference] = {difference.name: difference for difference in comparison.measures}
    parts = []
    for name, more, less in (
        ("learning", "learns {} points more", "learns {} points less"),
        (
            "held_out_forgetting",
            "keeps {} points more of the held-out benchmarks",
            "loses {} points more of the held-out benchmarks",
        ),
    ):
        difference = by_measure.get(name)
        if difference is not None and difference.significant:
            parts.append((more if difference.value > 0 else less).format(f"{abs(difference.value):.1f}"))
        elif difference is not None:
            parts.append(f"is within noise in {name.replace('_', ' ').replace('held out', 'held-out')}")
    differ = sum(difference.significant for difference in comparison.benchmarks)
    parts.append(f"differs on {differ} of {len(comparison.benchmarks)} benchmarks")
    return f"The second {', '.join(parts[:-1])}{', and ' if parts[:-1] else ''}{parts[-1]}."
