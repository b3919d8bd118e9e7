"""What the page shows beside a sweep's results: answers with their pictures, and pairs of trials."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lmmcl.reports.flips import front_keys
from lmmcl.reports.page.page_answers import PageAnswers, page_answers
from lmmcl.reports.page.page_pairs import page_pairs
from lmmcl.reports.recommend import short_name
from lmmcl.reports.results import SweepResults
from lmmcl.search.run_context import RunContext

SHOWN = 3
"""Trials whose answers are shown until the reader chooses others."""


@dataclass(frozen=True)
class PageExtras:
    """See `page_extras`; `pairs` is what `page_pairs` gives."""

    answers: PageAnswers = field(default_factory=PageAnswers)
    pairs: dict[str, Any] = field(default_factory=lambda: {"trials": [], "pairs": []})

    def size(self) -> int:
        """Bytes of the pictures as text."""
        return sum(len(content) * 4 // 3 for content, _ in self.answers.pictures.values())

    def summary(self, results: SweepResults) -> dict[str, Any]:
        """What the page knows of them before they are looked at."""
        trials = {trial.key: trial for trial in results.trials}
        known = [trials[key] for key in self.answers.trials]
        best = set(front_keys(results)) if known else set()
        front = [place for place, key in enumerate(self.answers.trials) if key in best]
        return {
            "answers": {
                "trials": [{"name": trial.name, "short": short_name(results, trial)} for trial in known],
                "blocks": self.answers.summary(),
                "shown": (front or list(range(len(known))))[-SHOWN:],
                "pictures": None,
            },
            "pairs": self.pairs,
        }


def page_extras(context: RunContext, results: SweepResults) -> PageExtras:
    """What the store holds of a sweep that its page shows and its results do not."""
    return PageExtras(page_answers(context, results), page_pairs(context, results))
