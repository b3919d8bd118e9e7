"""Held-out benchmarks asked in several wordings: what was forgotten is a wording, or a skill."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.table import Table

from lmmcl.reports import formatting
from lmmcl.reports.recommend import short_name
from lmmcl.reports.results import StageResult, SweepResults, TrialResult
from lmmcl.reports.seeds import averaged, has_seeds
from lmmcl.reports.tables.small_table import SmallTable

TITLE = "Wordings of held-out benchmarks"
HEADS = ("trial", "benchmark", "as asked", "mean of wordings", "spread", "best wording")
NOTE = (
    "Change at the last stage against the model before the first, in points; spread is the standard deviation over wordings. "
    "Best wording: the best score then minus the best before. Where it stays and `as asked` falls, a wording was forgotten and not "
    "the skill."
)


@dataclass(frozen=True)
class Spread:
    """How a benchmark changed in all its wordings, in points; `as_asked` in its own."""

    benchmark: str
    as_asked: float
    mean: float
    spread: float
    best: float
    changes: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """As reports for other programs hold it."""
        return asdict(self)


def spreads(trial: TrialResult, stage: StageResult | None = None) -> list[Spread]:
    """Of each benchmark with wordings, what became of it after `stage` (default: the last); none at stage 0."""
    stage, base = stage or trial.last, next((candidate for candidate in trial.stages if candidate.number == 0), None)
    if stage is None or base is None or stage.number == 0:
        return []
    listed = []
    for name, before in base.wordings.items():
        after = stage.wordings.get(name, {})
        if name not in stage.scores or set(after) != set(before):
            continue
        first, last = (
            [base.scores[name], *before.values()],
            [stage.scores[name], *(after[candidate] for candidate in before)],
        )
        changes = [now - then for then, now in zip(first, last, strict=True)]
        by_wording = dict(zip(before, changes[1:], strict=True))
        deviation = float(np.std(changes, ddof=1))
        best = max(last) - max(first)
        listed.append(Spread(name, changes[0], sum(changes) / len(changes), deviation, best, by_wording))
    return listed


def wording_rows(results: SweepResults) -> Iterator[dict[str, Any]]:
    """A row for each wording of each benchmark after each stage: its score and its change against stage 0, in points."""
    for trial in results.trials:
        base = next((candidate for candidate in trial.stages if candidate.number == 0), None)
        for stage in trial.stages:
            for name, scores in stage.wordings.items():
                for wording, score in {"": stage.scores.get(name), **scores}.items():
                    first = base and (base.wordings.get(name, {}).get(wording) if wording else base.scores.get(name))
                    known = score is not None and first is not None
                    yield {
                        "trial": trial.name,
                        "stage": stage.number,
                        "benchmark": name,
                        "wording": wording,
                        "score": score,
                        "change": score - first if known else None,  # type: ignore[operator]
                        "trial_key": trial.key,
                    }


def _rows(results: SweepResults) -> list[list[str]]:
    results = averaged(results) if has_seeds(results) else results
    return [
        [
            short_name(results, trial),
            spread.benchmark,
            formatting.points(spread.as_asked),
            formatting.points(spread.mean),
            formatting.spread(spread.spread),
            formatting.points(spread.best),
        ]
        for trial in results.trials
        for spread in spreads(trial)
    ]


def wordings_table(results: SweepResults) -> Table | None:
    """For the terminal; None where no benchmark has wordings."""
    return _table(results).terminal()


def wordings_markdown(results: SweepResults) -> str:
    """The same as Markdown; empty where no benchmark has wordings."""
    return _table(results).markdown()


def _table(results: SweepResults) -> SmallTable:
    return SmallTable(TITLE, HEADS, _rows(results), NOTE, texts=(0, 1))
