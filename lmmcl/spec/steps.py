"""Steps: units of work that are done once, named by a key that is computed from what they compute.

Pretrained ─ Finetune ─ Finetune ─ …      each checkpoint's key holds its parents' keys
                ├─ Merge                  post-hoc mitigation of a stage, no training
                └─ Snapshot               the stage's weights after some of its updates
Evaluate(checkpoint, benchmark)           one per benchmark, so that one added later runs alone
Examine(checkpoint, probe)                one per probe, likewise
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from lmmcl.methods.mitigation import MergeMitigation, TrainingMitigation
from lmmcl.methods.recipes import Recipe
from lmmcl.models.base import LMM
from lmmcl.spec.keys import key_of
from lmmcl.spec.settings import Evaluation, Training
from lmmcl.tasks.base import Benchmark, Example, Skill
from lmmcl.tasks.probes import Probe


class StepBase:
    """What all steps share: a key from an identity, a readable label, a place in the ledger."""

    kind: str

    @property
    def parents(self) -> tuple[Checkpoint, ...]:
        """The checkpoints that must exist before this step can run."""
        return ()

    def fields(self) -> dict[str, Any]:
        """The step's own identity, without its parents."""
        raise NotImplementedError

    @cached_property
    def key(self) -> str:
        """Hash of the step's own fields and its parents' keys."""
        return key_of(self.identity())

    def identity(self) -> dict[str, Any]:
        """All that decides what this step computes."""
        return {"kind": self.kind, **self.fields(), "parents": [parent.key for parent in self.parents]}

    @property
    def label(self) -> str:
        """Readable part of the path; a function of the identity alone."""
        raise NotImplementedError

    @property
    def path(self) -> str:
        """Folder of this step below the store."""
        raise NotImplementedError


class CheckpointStep(StepBase):
    """A step that ends in weights."""

    model: LMM
    depth: int

    @property
    def path(self) -> str:
        return f"checkpoints/{self.model.label}/{self.label}-{self.key}"


@dataclass(frozen=True)
class Pretrained(CheckpointStep):
    """Stage 0: the pre-trained model as it comes."""

    model: LMM
    kind = "pretrained"
    depth = 0

    def fields(self) -> dict[str, Any]:
        return {"model": self.model.identity()}

    @property
    def label(self) -> str:
        return "0-base"


@dataclass(frozen=True)
class Finetune(CheckpointStep):
    """One stage: teach `skill` to `parent`, training what `recipe` names.

    `snapshots` are the updates whose weights the plan wants too, written on the way past where that can be done; a hint of
    execution that enters no key.
    """

    parent: Checkpoint
    recipe: Recipe
    mitigation: TrainingMitigation | None
    skill: Skill
    training: Training
    seed: int
    snapshots: tuple[int, ...] = field(default=(), compare=False)
    kind = "finetune"

    @property
    def model(self) -> LMM:  # type: ignore[override]
        """The model that is taught."""
        return self.parent.model

    @property
    def depth(self) -> int:  # type: ignore[override]
        """How many skills have been taught when this step is done."""
        return self.parent.depth + 1

    @property
    def parents(self) -> tuple[Checkpoint, ...]:
        return (self.parent,)

    @cached_property
    def updates(self) -> int | None:
        """How many updates it has; None where that depends on data which are not at hand."""
        if self.training.max_steps:
            return self.training.max_steps
        return None if self.skill.missing() else self.training.updates(_size(self.skill.load))

    def fields(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe.identity(),
            "mitigation": self.mitigation.identity() if self.mitigation else None,
            "skill": self.skill.identity(),
            "training": self.training.identity(),
            "seed": self.seed,
        }

    @property
    def label(self) -> str:
        protected = f"-{self.mitigation.name}" if self.mitigation else ""
        return f"{self.depth}-{self.skill.name}-{self.recipe.label}{protected}-lr{self.training.learning_rate:g}-s{self.seed}"


@lru_cache(maxsize=64)
def _size(load: Callable[[], Sequence[Example]]) -> int:
    """How many examples a skill has; trials share it, and a file need not be read for each."""
    return len(load())


@dataclass(frozen=True)
class Snapshot(CheckpointStep):
    """The weights of `finetune` after the first `update` of its updates, with its data order and its schedule.

    Its delta lies over the checkpoint that the stage starts from, so it can be made without the finished stage.
    """

    finetune: Finetune
    update: int
    kind = "snapshot"

    @property
    def model(self) -> LMM:  # type: ignore[override]
        """The model that is taught."""
        return self.finetune.model

    @property
    def depth(self) -> int:  # type: ignore[override]
        """How many skills have been taught when the stage is done."""
        return self.finetune.depth

    @property
    def parents(self) -> tuple[Checkpoint, ...]:
        return (self.finetune.parent,)

    def fields(self) -> dict[str, Any]:
        return {"finetune": self.finetune.key, "update": self.update}

    @property
    def label(self) -> str:
        return f"{self.finetune.label}-u{self.update}"


@dataclass(frozen=True)
class Merge(CheckpointStep):
    """Post-hoc mitigation of a stage: combine one or more fine-tunes with the checkpoint that they are measured against.

    The result is stored as what differs from `anchor`. `rule.continues_from` decides what is the anchor and which
    fine-tunes are combined (see `Trial`); it enters the key through the parents.
    """

    anchor: Checkpoint
    finetunes: tuple[Finetune, ...]
    rule: MergeMitigation
    kind = "merge"

    @property
    def tuned(self) -> Finetune:
        """The fine-tune of this stage: the last."""
        return self.finetunes[-1]

    @property
    def model(self) -> LMM:  # type: ignore[override]
        """The model that is taught."""
        return self.anchor.model

    @property
    def depth(self) -> int:  # type: ignore[override]
        """How many skills have been taught when this step is done."""
        return max(self.tuned.depth, len(self.finetunes))

    @property
    def parents(self) -> tuple[Checkpoint, ...]:
        return (self.anchor, *self.finetunes)

    def fields(self) -> dict[str, Any]:
        return {"rule": self.rule.identity()}

    @property
    def label(self) -> str:
        stage = self.tuned.label.split("-", 1)[1]
        return f"{self.depth}-{stage}-{self.rule.name}"


@dataclass(frozen=True)
class Recorded(CheckpointStep):
    """A checkpoint read back from the ledger: enough to load, export and ask it, without the sweep that made it."""

    model: LMM
    depth: int
    recorded_key: str
    recorded_path: str
    recorded_label: str
    recorded_parents: tuple[Checkpoint, ...]
    kind = "recorded"

    @property
    def key(self) -> str:
        """The key that it was recorded under."""
        return self.recorded_key

    @property
    def path(self) -> str:
        return self.recorded_path

    @property
    def label(self) -> str:
        return self.recorded_label

    @property
    def parents(self) -> tuple[Checkpoint, ...]:
        """First the checkpoint that its delta is against."""
        return self.recorded_parents


Checkpoint = Pretrained | Finetune | Snapshot | Merge | Recorded


def stages_of(checkpoint: Checkpoint, since: Checkpoint | None = None) -> list[Checkpoint]:
    """The fine-tunes on the way to `checkpoint` (from `since` on), oldest first; of a merge its latest. A checkpoint that was
    read back from the ledger stands for itself, for it knows no more."""
    found: list[Checkpoint] = []
    at = checkpoint
    while at.parents and (since is None or at.key != since.key):
        stage = at.tuned if isinstance(at, Merge) else at
        found.append(stage)
        at = stage.parents[0]
    return found[::-1]


def skills_of(checkpoint: Checkpoint, since: Checkpoint | None = None) -> list[Skill]:
    """The skills taught on the way to `checkpoint` (from `since` on), oldest first."""
    return [stage.skill for stage in stages_of(checkpoint, since) if isinstance(stage, Finetune)]


@dataclass(frozen=True)
class Evaluate(StepBase):
    """Ask `benchmark` of `checkpoint`."""

    checkpoint: Checkpoint
    benchmark: Benchmark
    evaluation: Evaluation
    kind = "evaluate"

    @property
    def parents(self) -> tuple[Checkpoint, ...]:
        return (self.checkpoint,)

    def fields(self) -> dict[str, Any]:
        return {"benchmark": self.benchmark.identity(), "evaluation": self.evaluation.identity()}

    @property
    def label(self) -> str:
        return self.benchmark.name

    @property
    def path(self) -> str:
        under = self.checkpoint.path.removeprefix("checkpoints/")
        name = self.label.replace("/", ".")  # `lmms_eval/<task>` is one folder
        return f"scores/{under}/{name}-{self.key}"


@dataclass(frozen=True)
class Examine(StepBase):
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
            "probe": self.probe.identity(),
            "benchmarks": [benchmark.identity() for benchmark in self.benchmarks],
            "precision": self.evaluation.precision,  # how many questions are asked is the probe's own setting
        }

    @property
    def label(self) -> str:
        return self.probe.name

    @property
    def path(self) -> str:
        under = self.checkpoint.path.removeprefix("checkpoints/")
        return f"probes/{under}/{self.label}-{self.key}"


Asked = Evaluate | Examine
"""What is asked of a checkpoint; all of one checkpoint run in one task that loads its model once."""

Step = Checkpoint | Evaluate | Examine
