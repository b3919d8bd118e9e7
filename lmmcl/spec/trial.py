"""A trial: one point of a grid, as stages of steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lmmcl.methods.mitigation import MergeMitigation, Mitigation, TrainingMitigation
from lmmcl.methods.recipes import Recipe
from lmmcl.models.base import LMM
from lmmcl.models.roles import select
from lmmcl.spec.settings import Evaluation, Training
from lmmcl.spec.steps import Checkpoint, Evaluate, Finetune, Merge, Pretrained, Step
from lmmcl.tasks.base import Benchmark, Skill


@dataclass(frozen=True)
class Stage:
    """A position in a trial: stage 0 is the pre-trained model, stage k follows the k-th skill."""

    number: int
    skill: Skill | None
    checkpoint: Checkpoint
    evaluations: tuple[Evaluate, ...]


@dataclass(frozen=True)
class Trial:
    """Model, recipe, mitigation, order of skills, hyper-parameters and seed; `axes` holds what to show of the grid point."""

    model: LMM
    recipe: Recipe
    mitigation: Mitigation | None
    order: str
    skills: tuple[Skill, ...]
    held_out: tuple[Benchmark, ...]
    training: Training
    evaluation: Evaluation
    seed: int
    axes: Mapping[str, Any]
    name: str

    @property
    def key(self) -> str:
        """The key of the last checkpoint: a benchmark that is added later leaves the trial what it was."""
        return self.stages[-1].checkpoint.key

    @cached_property
    def benchmarks(self) -> tuple[Benchmark, ...]:
        """What every stage is asked: each skill's own benchmark in the order of learning, then the held-out ones."""
        own = {skill.name: skill.benchmark for skill in self.skills}
        return (*own.values(), *self.held_out)

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Stage 0 (the pre-trained model) and one stage per skill."""
        start: Checkpoint = Pretrained(self.model)
        stages = [self._stage(0, None, start)]
        for number, skill in enumerate(self.skills, start=1):
            asked, start = self._teach(start, skill)
            stages.append(self._stage(number, skill, asked))
        return tuple(stages)

    def _teach(self, start: Checkpoint, skill: Skill) -> tuple[Checkpoint, Checkpoint]:
        """The checkpoint that is evaluated after `skill`, and the one that the next stage starts from."""
        during = self.mitigation if isinstance(self.mitigation, TrainingMitigation) else None
        tuned = Finetune(start, self.recipe, during, skill, self.training, self.seed)
        if not isinstance(self.mitigation, MergeMitigation):
            return tuned, tuned
        merged = Merge(start, tuned, self.mitigation)
        return merged, merged if self.mitigation.continues_from == "merged" else tuned

    def _stage(self, number: int, skill: Skill | None, checkpoint: Checkpoint) -> Stage:
        asked = tuple(Evaluate(checkpoint, benchmark, self.evaluation) for benchmark in self.benchmarks)
        return Stage(number, skill, checkpoint, asked)

    def steps(self) -> dict[str, Step]:
        """All steps that this trial needs, by key, parents before children."""
        found: dict[str, Step] = {}

        def add(step: Step) -> None:
            if step.key not in found:
                for parent in step.parents:
                    add(parent)
                found[step.key] = step

        for stage in self.stages:
            add(stage.checkpoint)
            for evaluation in stage.evaluations:
                add(evaluation)
        return found

    def trained_parameters(self) -> int:
        """How many parameters the recipe trains, from the model's roles alone.

        Raises UserError when a selector of the recipe matches no role of the model.
        """
        counts = self.model.role_counts()
        chosen = select({role: role for role in counts}, self.recipe.train, model=self.model.name)
        return sum(counts[role] for role in chosen)
