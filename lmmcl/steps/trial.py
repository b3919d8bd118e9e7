"""A trial: one point of a grid, as stages of steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from lmmcl.config.search_settings import Limit
from lmmcl.config.settings import Evaluation, Training
from lmmcl.errors import UserError
from lmmcl.methods.mitigation import Mitigation
from lmmcl.methods.recipes.recipe import Recipe
from lmmcl.models.lmm import LMM
from lmmcl.steps import Checkpoint, Evaluate, Finetune, Merge, Pretrained, ProbeStep, ScoringStep, Snapshot, Step
from lmmcl.steps.count_trained import count_trained
from lmmcl.steps.expert_merge import merge_of
from lmmcl.steps.stage_settings import StageSettings
from lmmcl.tasks.probes import Probe
from lmmcl.tasks.skills import Benchmark, Skill
from lmmcl.tasks.wordings import WordedBenchmark

MOST_MOMENTS = 1000
"""Of one stage: beyond, `every` was probably meant for shorter stages. Each moment is a snapshot and all benchmarks."""


@dataclass(frozen=True)
class SnapshotPoint:
    """After `update` updates of a stage's fine-tune: the weights then (at its last update the fine-tune itself), and what is
    evaluated on them; `evaluations` are of all benchmarks or of none."""

    update: int
    checkpoint: Snapshot | Finetune
    probes: tuple[ProbeStep, ...]
    evaluations: tuple[Evaluate, ...] = ()

    @property
    def asked(self) -> tuple[ScoringStep, ...]:
        """Benchmarks, then probes."""
        return (*self.evaluations, *self.probes)


@dataclass(frozen=True)
class Stage:
    """A position in a trial: stage 0 is the pre-trained model, stage k follows the k-th skill."""

    number: int
    skill: Skill | None
    checkpoint: Checkpoint
    evaluations: tuple[Evaluate, ...]
    probes: tuple[ProbeStep, ...] = ()
    moments: tuple[SnapshotPoint, ...] = ()
    wordings: tuple[Evaluate, ...] = ()
    """Held-out benchmarks asked in other words, which no measure counts."""

    @property
    def tuned(self) -> Finetune | None:
        """The fine-tune of the stage, also where a merge came after it; None at stage 0."""
        tuned = self.checkpoint.tuned if isinstance(self.checkpoint, Merge) else self.checkpoint
        return tuned if isinstance(tuned, Finetune) else None

    @property
    def asked(self) -> tuple[ScoringStep, ...]:
        """The scoring steps of the checkpoint: benchmarks, then their other wordings, then probes."""
        return (*self.evaluations, *self.wordings, *self.probes)

    @property
    def examined(self) -> tuple[ScoringStep, ...]:
        """The probes of the checkpoint, then the scoring steps of the moments inside the stage."""
        return (*self.probes, *(step for moment in self.moments for step in moment.asked))


@dataclass(frozen=True)
class Trial:
    """Model, recipe, mitigation, order of skills, hyper-parameters and seed; `axes` holds what to show of the grid point.

    `by_stage` holds the settings of stages that differ from the grid point's, by number (see `lmmcl.config.stage_overrides`).
    `stop` says after which stages the walk ends early; it enters no key. `bound` is `joint` or `alone` for a trial that others are
    measured against: all skills at once, or one of them from the base.
    """

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
    probes: tuple[Probe, ...] = ()
    wordings: tuple[WordedBenchmark, ...] = ()
    stop: Mapping[str, Limit] = field(default_factory=dict)
    by_stage: Mapping[int, StageSettings] = field(default_factory=dict)
    bound: str = ""

    @cached_property
    def settings(self) -> dict[int, StageSettings]:
        """What is in force at each stage, by number from 1."""
        own = StageSettings(self.recipe, self.mitigation, self.training)
        return {number: self.by_stage.get(number, own) for number in range(1, len(self.skills) + 1)}

    @property
    def mitigations(self) -> tuple[Mitigation, ...]:
        """The mitigations of all stages, each once; of combinations what they consist of."""
        distinct: list[Mitigation] = []
        for settings in self.settings.values():
            for part in settings.mitigation.parts if settings.mitigation else ():
                if part not in distinct:
                    distinct.append(part)
        return tuple(distinct)

    @property
    def key(self) -> str:
        """The key of the last checkpoint: a benchmark or probe that is added later leaves the trial what it was."""
        return self.stages[-1].checkpoint.key

    @cached_property
    def benchmarks(self) -> tuple[Benchmark, ...]:
        """What every stage is asked: each skill's own benchmark in the order of learning, then the held-out ones."""
        own = {part.name: part.benchmark for skill in self.skills for part in skill.parts}
        return (*own.values(), *self.held_out)

    @property
    def targets(self) -> tuple[str | tuple[str, ...], ...]:
        """The names of the skills' own benchmarks in the order of learning; a tuple where one stage teaches several."""
        names = [tuple(benchmark.name for benchmark in skill.benchmarks) for skill in self.skills]
        return tuple(target[0] if len(target) == 1 else target for target in names)

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Stage 0 (the pre-trained model) and one stage per skill."""
        stages = [self._stage(0, None, Pretrained(self.model))]
        taught: list[Finetune] = []
        for number, skill in enumerate(self.skills, start=1):
            tuned, asked = self._teach(stages, taught, skill)
            taught.append(tuned)
            stages.append(self._stage(number, skill, asked, self._moments(tuned)))
        return tuple(stages)

    def _teach(self, stages: Sequence[Stage], taught: Sequence[Finetune], skill: Skill) -> tuple[Finetune, Checkpoint]:
        """The fine-tune of a stage, and the checkpoint that is evaluated after it.

        `stages` are those before, `taught` their fine-tunes. All merges of a trial agree on where the next stage starts, so a
        stage without one starts there too (see `check_stages`).
        """
        settings = self.settings[len(stages)]
        base, before = stages[0].checkpoint, stages[-1].checkpoint
        match self._continues_from:
            case "tuned":
                start: Checkpoint = taught[-1] if taught else base
            case "base":
                start = base
            case _:
                start = before
        tuned = self._finetune(start, skill, settings)
        merges = settings.mitigation.merges if settings.mitigation else ()
        if not merges:
            return tuned, tuned
        first, *later = merges
        anchor = before if first.continues_from == "merged" else base
        merged = merge_of(anchor, (*taught, tuned) if first.continues_from == "base" else (tuned,), first)
        for rule in later:  # each makes of the result of the one before what it would make of a fine-tune
            merged = Merge(anchor, (merged,), rule)
        return tuned, merged

    @property
    def _continues_from(self) -> str | None:
        """Where merges say that the next stage starts; None in a trial without merges."""
        protected = (settings.mitigation for settings in self.settings.values() if settings.mitigation)
        return next((mitigation.merges[0].continues_from for mitigation in protected if mitigation.merges), None)

    def _finetune(self, start: Checkpoint, skill: Skill, settings: StageSettings) -> Finetune:
        during = settings.mitigation.in_training if settings.mitigation else None
        tuned = Finetune(start, settings.recipe, during, skill, settings.training, self.seed)
        return replace(tuned, snapshots=tuple(update for update in self._updates(tuned) if update != tuned.updates))

    def _updates(self, tuned: Finetune, last: int | None = None) -> list[int]:
        """The updates inside a stage after which something is asked; what lies beyond its end is left out."""
        if not self._looks_inside:  # the training data need not be read, to be counted, by every command
            return []
        if last is None:
            self._check_moments(tuned.updates or 0)
        last = last or tuned.updates
        probed = {update for probe in self.probes for update in probe.updates if last is None or update <= last}
        return sorted(probed | self.evaluation.moments(last))

    def _check_moments(self, updates: int) -> None:
        """Refuse more moments than anybody meant, before a step is made for each benchmark at each of them."""
        every = self.evaluation.every
        if every and updates // every > MOST_MOMENTS:
            raise UserError(
                f"{every} evaluates {updates // every:,} times inside a stage of {updates:,} updates; allowed: {MOST_MOMENTS:,}, "
                f"so at least every {-(-updates // MOST_MOMENTS)} updates",
                place="evaluation.every",
            )

    @property
    def _looks_inside(self) -> bool:
        return self.evaluation.looks_inside or any(probe.updates for probe in self.probes)

    def _moments(self, tuned: Finetune, last: int | None = None) -> tuple[SnapshotPoint, ...]:
        updates = self._updates(tuned, last)
        if not updates:
            return ()
        moments, end = [], last or tuned.updates
        asked_after = self.evaluation.moments(end)
        for update in updates:
            checkpoint = tuned if update == end else Snapshot(tuned, update)
            probes = [probe for probe in self.probes if update in probe.updates]
            asked = self._evaluations(checkpoint) if update in asked_after else ()
            moments.append(SnapshotPoint(update, checkpoint, self._probes(checkpoint, probes), asked))
        return tuple(moments)

    def truncate(self, stage: Stage, updates: Callable[[Finetune], int | None]) -> Stage:
        """`stage` without moments beyond its end, where only `updates` (of a fine-tune that was made) knows that.

        How many updates a fine-tune has depends on data, and those need not be on the machine that reads its results.
        """
        tuned = stage.tuned
        if tuned is None or not self._looks_inside or tuned.updates is not None:
            return stage
        last = updates(tuned)
        return stage if last is None else replace(stage, moments=self._moments(tuned, last))

    def _stage(
        self, number: int, skill: Skill | None, checkpoint: Checkpoint, moments: tuple[SnapshotPoint, ...] = ()
    ) -> Stage:
        asked = self._evaluations(checkpoint)
        reworded = tuple(Evaluate(checkpoint, benchmark, self.evaluation) for benchmark in self.wordings)
        return Stage(number, skill, checkpoint, asked, self._probes(checkpoint, self.probes), moments, reworded)

    def _evaluations(self, checkpoint: Checkpoint) -> tuple[Evaluate, ...]:
        return tuple(Evaluate(checkpoint, benchmark, self.evaluation) for benchmark in self.benchmarks)

    def _probes(self, checkpoint: Checkpoint, probes: Sequence[Probe]) -> tuple[ProbeStep, ...]:
        """The probes of a checkpoint; the pre-trained model is not compared with itself."""
        return tuple(
            ProbeStep(
                checkpoint,
                probe,
                probe.benchmarks(self.held_out, drawn=self.model.knows_drawings, taught=self.benchmarks),
                self.evaluation,
            )
            for probe in probes
            if not (probe.needs_base and isinstance(checkpoint, Pretrained))
        )

    def steps(self, stages: Sequence[Stage] | None = None) -> dict[str, Step]:
        """All steps that this trial (or some `stages` of it) needs, by key, parents before children."""
        by_key: dict[str, Step] = {}

        def add(step: Step) -> None:
            key = step.key
            if key not in by_key:
                for parent in step.parents:
                    if parent.key not in by_key:  # most are there: a call for each would take as long as the rest
                        add(parent)
                by_key[key] = step

        for stage in self.stages if stages is None else stages:
            add(stage.checkpoint)
            for asked in (*stage.asked, *stage.examined):
                add(asked)
        return by_key

    def trained_parameters(self) -> int:
        """How many parameters the recipe trains, from the model's inventory alone; the most that a stage trains.

        Raises UserError when a recipe does not fit the model (see `count_trained`).
        """
        return max(count_trained(settings.recipe, self.model).trained for settings in self.settings.values())
