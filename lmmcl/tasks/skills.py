"""What is learnt and asked: benchmarks (questions and a metric) and skills (training examples and a benchmark).

Nothing here is heavy: these objects are part of steps, enter keys, and travel to workers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lmmcl.tasks.examples import Example
from lmmcl.tasks.metrics.metric import Metric, get_metric


@dataclass(frozen=True)
class Benchmark:
    """Something asked: questions and a metric. `version` is raised whenever questions, prompts or answers change."""

    name: str
    version: int
    metric: str
    load: Callable[[], Sequence[Example]] = field(compare=False)
    max_new_tokens: int = 8
    description: str = ""
    balance: str | None = field(default=None, kw_only=True)
    """A field of the examples' metadata: the score is then the mean over its values of the mean score of each."""
    tags: Mapping[str, Any] = field(default_factory=dict, compare=False, kw_only=True)
    """Whether images and texts are like those that a skill is taught with: {"image": "ood", "text": "id"} whatever is taught,
    {"birds": {"image": "id", "text": "ood"}} relative to the skill `birds`, or both. For reports; no part of the identity."""

    def scoring(self) -> Metric:
        """How answers are scored; another than the metric of that name where the questions bring their own."""
        return get_metric(self.metric)

    def identity(self) -> dict[str, Any]:
        """What of this enters a step's key."""
        metric = self.scoring()
        return {
            "name": self.name,
            "version": self.version,
            "metric": {"name": metric.name, "version": metric.version},
            "max_new_tokens": self.max_new_tokens,
            **({"balance": self.balance} if self.balance else {}),
        }

    def likeness(self, side: str, skill: str) -> str | None:
        """`id` or `ood`: whether this benchmark's `side` (image or text) is like that of `skill`; None where nothing says so."""
        own = self.tags.get(skill)
        return (own if isinstance(own, Mapping) else self.tags).get(side)

    def missing(self) -> str | None:
        """What `load` needs and is not at hand, and how to fetch it; None when nothing is missing. Cheap to ask."""
        return None

    def notes(self) -> tuple[str, ...]:
        """What a plan says of the data: nothing is wrong, but it is not shown as it is stored. Cheap to ask."""
        return ()


@dataclass(frozen=True)
class Skill:
    """Something taught: training examples, with a benchmark of its own."""

    name: str
    version: int
    load: Callable[[], Sequence[Example]] = field(compare=False)
    benchmark: Benchmark = field(compare=False)
    description: str = ""

    def identity(self) -> dict[str, Any]:
        """What of this enters a step's key (the benchmark does not: it is asked, not taught)."""
        return {"name": self.name, "version": self.version}

    def missing(self) -> str | None:
        """What `load` needs and is not at hand, and how to fetch it; None when nothing is missing. Cheap to ask."""
        return None

    def notes(self) -> tuple[str, ...]:
        """What a plan says of the data: nothing is wrong, but it is not shown as it is stored. Cheap to ask."""
        return ()
