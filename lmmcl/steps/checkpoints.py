"""Steps that end in weights: the pre-trained model, a stage's fine-tune, a moment inside it, and merges of fine-tunes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, ClassVar

from lmmcl.config.settings import Training
from lmmcl.methods.mitigation import MergeMitigation, TrainingMitigation
from lmmcl.methods.recipes.recipe import Recipe
from lmmcl.models.lmm import LMM
from lmmcl.steps.keys import IdentityTexts, key_of, key_with
from lmmcl.tasks.examples import Example
from lmmcl.tasks.skills import Skill

_SETTINGS = IdentityTexts()


class StepBase:
    """What all steps share: a key from an identity, a readable label, a place in the ledger."""

    __slots__ = ()
    kind: ClassVar[str]

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

    @cached_property
    def path(self) -> str:
        return f"checkpoints/{self.model.label}/{self.label}-{self.key}"

    @property
    def bases(self) -> tuple[Checkpoint, ...]:
        """The checkpoints that must be there for this one to be loaded: the one that its delta lies over."""
        return self.parents[:1]


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
    mitigation: TrainingMitigation[Any] | None
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
    def examples(self) -> int | None:
        """How many training examples it has; None where that depends on data which are not at hand."""
        size = self.skill.known_rows()
        if size is None and not self.skill.missing():
            size = _size(self.skill.load)
        return size and min(size, self.training.examples or size)

    @cached_property
    def updates(self) -> int | None:
        """How many updates it has; None where that depends on data which are not at hand."""
        if self.training.max_steps:
            return self.training.max_steps
        return None if self.examples is None else self.training.updates(self.examples)

    def fields(self) -> dict[str, Any]:
        return {"recipe": self.recipe.identity(), "training": self.training.identity(), **self._other_fields}

    @property
    def _other_fields(self) -> dict[str, Any]:
        return {
            "mitigation": self.mitigation.identity() if self.mitigation else None,
            "skill": self.skill.identity(),
            "seed": self.seed,
            **({"frozen": "evaluation"} if self._freezes_dropout else {}),
            **self.skill.sampling(self.training.examples),
        }

    @cached_property
    def key(self) -> str:
        """That of `identity`; recipe and settings are the same in many stages, and made a text once."""
        shared = {"recipe": _SETTINGS.text_of(self.recipe), "training": _SETTINGS.text_of(self.training)}
        return key_with({"kind": self.kind, **self._other_fields, "parents": [self.parent.key]}, shared)

    @property
    def _freezes_dropout(self) -> bool:
        """Whether a part with dropout is frozen, at least in part: what that computes changed when its dropout was switched off."""
        return any(not {"*", part} & set(self.recipe.train) for part in self.model.dropout_parts)

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
    Where mitigations are combined, the only one may be the merge before.

    The result is stored as what differs from `anchor`. `rule.continues_from` decides what is the anchor and which
    fine-tunes are combined (see `Trial`); it enters the key through the parents. A rule that routes combines nothing: the
    fine-tunes stay experts, and from two on `router` chooses among them.
    """

    anchor: Checkpoint
    finetunes: tuple[Finetune | Merge, ...]
    rule: MergeMitigation[Any]
    router: Finetune | None = None
    kind = "merge"

    @property
    def tuned(self) -> Finetune:
        """The fine-tune of this stage: the last."""
        last = self.finetunes[-1]
        return last.tuned if isinstance(last, Merge) else last

    @property
    def model(self) -> LMM:  # type: ignore[override]
        """The model that is taught."""
        return self.anchor.model

    @property
    def depth(self) -> int:  # type: ignore[override]
        """How many different skills have been taught when this step is done."""
        return max(self.finetunes[-1].depth, len(self.finetunes))

    @property
    def parents(self) -> tuple[Checkpoint, ...]:
        return (self.anchor, *self.finetunes, *([self.router] if self.router else []))

    @property
    def experts(self) -> tuple[Finetune, ...]:
        """The fine-tunes that answer, one for each skill; none where they are merged."""
        return tuple(tuned for tuned in self.finetunes if isinstance(tuned, Finetune)) if self.rule.routes else ()

    @property
    def bases(self) -> tuple[Checkpoint, ...]:
        return self.parents if self.rule.routes else self.parents[:1]

    def fields(self) -> dict[str, Any]:
        return {"rule": self.rule.identity()}

    @property
    def label(self) -> str:
        stage = self.finetunes[-1].label.split("-", 1)[1]
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
