"""Which probe goes with forgetting: Spearman's rank correlation over all stages of a sweep's trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich import box
from rich.table import Table

from lmmcl.reports import formatting
from lmmcl.reports.results import SweepResults, finite

FEWEST = 4
EXACT = 8
"""Stages up to which the p-value counts all n! orders; SciPy's own p-value is a t approximation (0 for |ρ| = 1)."""
"""Stages below which no correlation is shown: three points agree by chance once in six."""
WORTH = "held_out_forgetting"
NOTE = (
    "Held-out forgetting is negative where something was forgotten: at −1 a probe is highest where most was forgotten."
)


@dataclass(frozen=True)
class Correlation:
    """Spearman's ρ of a probe's value with held-out forgetting, its two-sided p-value, over how many stages."""

    probe: str
    rho: float
    p: float
    stages: int


def probe_correlations(results: SweepResults) -> list[Correlation]:
    """Every probe value that varies over at least four stages after the first, strongest first.

    A checkpoint that trials share counts once. Stages follow on one another, so p is a guide and no test.
    """
    points = _points(results)
    names = dict.fromkeys(name for probes, _ in points for name in probes)
    correlations = [_correlation(name, points) for name in names]
    return sorted(
        (correlation for correlation in correlations if correlation),
        key=lambda correlation: (-abs(correlation.rho), correlation.probe),
    )


def _points(results: SweepResults) -> list[tuple[dict[str, float], float]]:
    """(probe values, held-out forgetting in percentage points) of every checkpoint that was taught something."""
    points: dict[str, tuple[dict[str, float], float]] = {}
    for trial in results.trials:
        for stage in trial.stages:
            lost = finite(stage.measures.get(WORTH))
            if stage.number and lost is not None and stage.probes:
                values = {name: value for name, probed in stage.probes.items() if (value := finite(probed)) is not None}
                points[stage.checkpoint_key] = (values, lost)
    return list(points.values())


def _correlation(name: str, points: list[tuple[dict[str, float], float]]) -> Correlation | None:
    from scipy.stats import spearmanr

    pairs = [(probes[name], lost) for probes, lost in points if name in probes]
    values, losses = [value for value, _ in pairs], [lost for _, lost in pairs]
    if len(pairs) < FEWEST or len(set(values)) < 2 or len(set(losses)) < 2:
        return None
    rank = spearmanr(values, losses)
    p = exact_p(values, losses) if len(pairs) <= EXACT else float(rank.pvalue)
    return Correlation(name, float(rank.statistic), p, len(pairs))


def exact_p(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided exact p-value of Spearman's ρ: the share of all n! pairings at least as far from 0 (ties share a rank).

    4 stages in perfect order: 2/4! = 0.083.
    """
    from scipy.stats import permutation_test, rankdata

    centred = rankdata(first) - (len(first) + 1) / 2
    other = rankdata(second) - (len(second) + 1) / 2
    # Ranks keep their variance under a permutation, so the covariance orders pairings as ρ does.
    return float(
        permutation_test(
            (centred,),
            lambda ranks, axis=-1: np.abs(np.sum(ranks * other, axis=axis)),
            alternative="greater",
            permutation_type="pairings",
            n_resamples=math.factorial(len(centred)),
            vectorized=True,
        ).pvalue
    )


def shown(correlations: list[Correlation]) -> list[Correlation]:
    """Without the parts that a probe sums up itself (single layers, positions, benchmarks), and without held-out scores.

    A score of `constrained` falls with forgetting because it is what was forgotten; its gain is the finding.
    """
    return [correlation for correlation in correlations if summarises(correlation.probe)]


def summarises(probe: str) -> bool:
    """Whether a probe's value is none of its parts (a layer, a position, a benchmark) and no held-out score."""
    return not probe[-1].isdigit() and "/benchmark/" not in probe and not probe.endswith(("/free", "/score"))


def correlation_rows(results: SweepResults) -> list[tuple[str, str, str, str]]:
    """(probe, ρ, p, stages) as text; empty where the sweep has no probes or too few stages."""
    correlations = shown(probe_correlations(results))
    return [
        (
            correlation.probe,
            f"{correlation.rho:+.2f}".replace("-", "−"),
            formatting.p_value(correlation.p),
            str(correlation.stages),
        )
        for correlation in correlations
    ]


def correlation_table(results: SweepResults) -> Table | None:
    """For the terminal; None where there is nothing to show."""
    rows = correlation_rows(results)
    if not rows:
        return None
    table = Table(title="Probes against held-out forgetting", caption=NOTE, title_justify="left")
    table.box, table.caption_justify = box.SIMPLE_HEAD, "left"
    table.add_column("probe")
    for heading in ("Spearman ρ", "p", "stages"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def correlation_markdown(results: SweepResults) -> str:
    """The same as Markdown; empty where there is nothing to show."""
    rows = correlation_rows(results)
    if not rows:
        return ""
    lines = [
        "### Probes against held-out forgetting",
        "",
        "| probe | Spearman ρ | p | stages |",
        "|---|---:|---:|---:|",
    ]
    lines += [f"| `{name}` | {rho} | {p} | {stages} |" for name, rho, p, stages in rows]
    return "\n".join([*lines, "", NOTE, ""])
