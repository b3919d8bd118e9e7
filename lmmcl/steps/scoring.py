"""Steps that ask a checkpoint: the questions of a benchmark, and what a probe finds inside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lmmcl.config.settings import Evaluation
from lmmcl.steps.checkpoints import Checkpoint, Pretrained, StepBase
from lmmcl.steps.keys import MOST_SHARED, ChildKeys
from lmmcl.tasks.probes import Probe
from lmmcl.tasks.skills import Benchmark


@dataclass(frozen=True, slots=True)  # a large sweep has 100,000
class Evaluate(StepBase):
    """Ask `benchmark` of `checkpoint`."""

    checkpoint: Checkpoint
    benchmark: Benchmark
    evaluation: Evaluation
    _key: str = field(default_factory=str, init=False, repr=False, compare=False)
    kind = "evaluate"

    @property
    def parents(self) -> tuple[Checkpoint, ...]:
        return (self.checkpoint,)

    def fields(self) -> dict[str, Any]:
        return _asked(self.benchmark, self.evaluation)

    @property
    def key(self) -> str:  # what is cached in a field takes a third of the memory
        if not self._key:
            key = _child_keys(self.benchmark, self.evaluation).of(self.checkpoint.key)
            object.__setattr__(self, "_key", key)
        return self._key

    @property
    def label(self) -> str:
        return self.benchmark.name

    @property
    def path(self) -> str:
        under = self.checkpoint.path.removeprefix("checkpoints/")
        name = self.label.replace("/", ".")  # `lmms_eval/<task>` is one folder
        return f"scores/{under}/{name}-{self.key}"


@dataclass(frozen=True)
class ProbeStep(StepBase):
    """Look into `checkpoint` with `probe`, on the questions of `benchmarks`."""

    checkpoint: Checkpoint
    probe: Probe
    benchmarks: tuple[Benchmark, ...]
    evaluation: Evaluation
    kind = "examine"

    @property
    def base(self) -> Pretrained:
        """The pre-trained model that the checkpoint comes from."""
        return Pretrained(self.checkpoint.model)

    @property
    def parents(self) -> tuple[Checkpoint, ...]:
        return (self.checkpoint, self.base) if self.probe.needs_base else (self.checkpoint,)

    def fields(self) -> dict[str, Any]:
        return {
            "probe": self.probe.identity(self.benchmarks),
            "benchmarks": [
                {**benchmark.identity(), **benchmark.sampling(self.probe.examples)} for benchmark in self.benchmarks
            ],
            "precision": self.evaluation.precision,  # how many questions are asked is the probe's own setting
        }

    @property
    def label(self) -> str:
        return self.probe.name

    @property
    def path(self) -> str:
        under = self.checkpoint.path.removeprefix("checkpoints/")
        return f"probes/{under}/{self.label}-{self.key}"


def _asked(benchmark: Benchmark, evaluation: Evaluation) -> dict[str, Any]:
    return {
        "benchmark": benchmark.identity(),
        "evaluation": evaluation.identity(),
        **benchmark.sampling(evaluation.limit),
    }


_CHILD_KEYS: dict[tuple[int, int], tuple[Benchmark, Evaluation, ChildKeys]] = {}


def _child_keys(benchmark: Benchmark, evaluation: Evaluation) -> ChildKeys:
    """What asks a benchmark of some checkpoint: every checkpoint of a sweep is asked the same."""
    place = (id(benchmark), id(evaluation))
    if known := _CHILD_KEYS.get(place):
        return known[2]
    keys = ChildKeys(Evaluate.kind, _asked(benchmark, evaluation))
    if len(_CHILD_KEYS) >= MOST_SHARED:
        _CHILD_KEYS.clear()
    _CHILD_KEYS[place] = benchmark, evaluation, keys  # kept, so that the ids stay theirs
    return keys


ScoringStep = Evaluate | ProbeStep
"""The scoring of a checkpoint; all of one checkpoint run in one task that loads its model once."""
