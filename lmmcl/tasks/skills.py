"""What is learnt and asked: benchmarks (questions and a metric) and skills (training examples and a benchmark).

Nothing here is heavy: these objects are part of steps, enter keys, and travel to workers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lmmcl.tasks.examples import Example, Rows
from lmmcl.tasks.metrics.metric import Metric, get_metric
from lmmcl.tasks.sampling import SAMPLING, Chosen, sample_rows, spread_rows

if TYPE_CHECKING:
    from lmmcl.tasks.files.fingerprints import Fingerprints
    from lmmcl.tasks.metrics.judge import Judge


class Data:
    """What skills and benchmarks have in common: examples, and a fixed sample of them where there is a limit."""

    name: str
    load: Callable[[], Sequence[Example]]
    random_order: bool = False

    def identity(self) -> dict[str, Any]:
        """What of this enters a step's key."""
        raise NotImplementedError

    def missing(self) -> str | None:
        """What `load` needs and is not at hand, and how to fetch it; None when nothing is missing. Cheap to ask."""
        return None

    def notes(self) -> tuple[str, ...]:
        """What a plan says of the data: nothing is wrong, but it is not shown as it is stored. Cheap to ask."""
        return ()

    def fingerprints(self) -> Fingerprints | None:
        """What tells rows that other data hold too; None where nothing is to be compared, or the data are not at hand."""
        return None

    def known_rows(self) -> int | None:
        """How many examples there are, where the identity settles it; None where only the data tell. Cheap to ask."""
        return None

    def sampling(self, count: int | None) -> dict[str, Any]:
        """What enters a step's key beside `count`, the number of examples that it takes (None: all), where those are a sample."""
        rows = self.known_rows()
        whole = count is None or (rows is not None and rows <= count)
        return {} if whole or self._in_order() else {"sample": SAMPLING}

    def take(self, count: int | None) -> Sequence[Example]:
        """`count` of the examples (None, or where there are fewer: all), the same whenever it is asked for."""
        examples = self.load()
        if count is None or count >= len(examples):
            return examples
        return Chosen(examples, range(count) if self._in_order() else self._choose(examples, count))

    def _in_order(self) -> bool:
        """Whether the first examples are as good a sample as any."""
        return self.random_order

    def _choose(self, examples: Sequence[Example], count: int) -> Sequence[int]:
        return sample_rows(len(examples), count)


@dataclass(frozen=True)
class Benchmark(Data):
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
    random_order: bool = field(default=False, compare=False, kw_only=True)
    """Whether each example is drawn independently of the others, so that the first N are a sample; files may be sorted."""

    @property
    def judge(self) -> Judge | None:
        """The model that scores open answers; None where a metric does."""
        return None

    def scoring(self) -> Metric:
        """How answers are scored; another than the metric of that name where the questions bring their own."""
        return get_metric(self.metric)

    def identity(self) -> dict[str, Any]:
        """What of this enters a step's key."""
        metric = self.scoring()
        return {
            "name": self.name,
            "version": self.version,
            "metric": {
                "name": metric.name,
                "version": metric.version,
                **({"judge": self.judge.identity()} if self.judge else {}),
            },
            "max_new_tokens": self.max_new_tokens,
            **({"balance": self.balance} if self.balance else {}),
        }

    def likeness(self, side: str, skill: str) -> str | None:
        """`id` or `ood`: whether this benchmark's `side` (image or text) is like that of `skill`; None where nothing says so."""
        own = self.tags.get(skill)
        return (own if isinstance(own, Mapping) else self.tags).get(side)

    def _in_order(self) -> bool:
        return self.random_order and self.balance is None

    def _choose(self, examples: Sequence[Example], count: int) -> Sequence[int]:
        """Spread evenly over the values of `balance`, whose means the score is the mean of."""
        if self.balance is None:
            return super()._choose(examples, count)
        field = self.balance
        groups = (
            examples.values(field)
            if isinstance(examples, Rows)
            else [example.metadata.get(field) for example in examples]
        )
        return spread_rows(groups, count)


@dataclass(frozen=True)
class Skill(Data):
    """Something taught: training examples, with a benchmark of its own."""

    name: str
    version: int
    load: Callable[[], Sequence[Example]] = field(compare=False)
    benchmark: Benchmark = field(compare=False)
    description: str = ""
    random_order: bool = field(default=False, compare=False, kw_only=True)
    """Whether each example is drawn independently of the others, so that the first N are a sample; files may be sorted."""

    @property
    def parts(self) -> tuple[Skill, ...]:
        """The skills that it consists of: itself, or those that are taught together."""
        return (self,)

    @property
    def benchmarks(self) -> tuple[Benchmark, ...]:
        """The benchmark of each part."""
        return (self.benchmark,)

    def identity(self) -> dict[str, Any]:
        """What of this enters a step's key (the benchmark does not: it is asked, not taught)."""
        return {"name": self.name, "version": self.version}
