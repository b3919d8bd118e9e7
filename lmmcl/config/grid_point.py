"""One point of a grid as a trial, and grids with drawn axes: spaces in which a search proposes such points."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from lmmcl.config.draws import Choice, Draw
from lmmcl.config.search_settings import Limit, Optuna
from lmmcl.config.settings import Evaluation, Training
from lmmcl.config.stage_overrides import StageOverrides
from lmmcl.config.trial_names import SEPARATOR, name_part
from lmmcl.config.validation import join, refusal
from lmmcl.errors import UserError, shown
from lmmcl.models.lmm import LMM
from lmmcl.steps import Finetune
from lmmcl.steps.count_trained import count_trained
from lmmcl.steps.keys import key_of
from lmmcl.steps.optimizers import check_optimizer
from lmmcl.steps.quantized import check_stage_quantized
from lmmcl.steps.stage_settings import StageSettings, check_stages
from lmmcl.steps.trial import Trial
from lmmcl.steps.trial_base import model_on_base, plain_recipe, stage_on_base
from lmmcl.tasks.probes import Probe
from lmmcl.tasks.skills import Benchmark, Skill
from lmmcl.tasks.wordings import WordedBenchmark

FIXED = ("model", "recipe", "mitigation", "order", "seed", "learning_rate")
"""Axes that have their own place in a trial's name."""
LENGTH = ("epochs", "max_steps", "examples", "global_batch_size")
"""Settings that decide how many updates a stage has."""


@dataclass(frozen=True)
class Points:
    """What all points of a sweep share. Picklable: a search's points become trials wherever they are walked."""

    file: str
    training: Training
    evaluation: Evaluation
    orders: Mapping[str, tuple[Skill, ...]]
    held_out: tuple[Benchmark, ...]
    probes: tuple[Probe, ...]
    wordings: tuple[WordedBenchmark, ...] = field(default=(), kw_only=True)
    bounds: frozenset[str] = field(default=frozenset(), kw_only=True)
    stop: Mapping[str, Limit]
    overrides: StageOverrides = field(default_factory=StageOverrides)
    _trainings: dict[str, Training] = field(default_factory=dict, init=False, repr=False, compare=False)

    def trial(self, point: Mapping[str, Any], place: str, listed: Mapping[str, Sequence[Any]] | None = None) -> Trial:
        """The trial at `point` (model, recipe, mitigation, order, seed, settings); raises UserError that names `place`.

        `listed` are the lists of the grid: where a value stands in its list is part of the place.
        """
        varied = {name: value for name, value in point.items() if name in Training.model_fields}
        training = self._training(varied, place)
        varied = {name: getattr(training, name) for name in varied}  # as it is trained, not as YAML wrote it
        mitigation = point["mitigation"]
        axes = {
            "model": point["model"].name,
            "recipe": point["recipe"].name,
            "mitigation": mitigation.label if mitigation else None,
            "order": point["order"],
            "seed": point["seed"],
            "learning_rate": training.learning_rate,
            **varied,
        }
        skills = self.orders[point["order"]]
        bound = "" if point["order"] not in self.bounds else "joint" if len(skills[0].parts) > 1 else "alone"
        if bound == "joint":
            training = _all_at_once(training, len(skills[0].parts))
        recipe, model = plain_recipe(point["recipe"]), self._on_base(point, place, listed or {})
        shared = StageSettings(recipe, mitigation, training)
        by_stage = self.overrides.settings(shared, skills, self.file)
        trial = Trial(
            model=model,
            recipe=recipe,
            mitigation=mitigation,
            order=point["order"],
            skills=skills,
            held_out=self.held_out,
            training=training,
            evaluation=self.evaluation,
            probes=self.probes,
            wordings=self.wordings,
            seed=point["seed"],
            axes=axes,
            name=self._name(axes),
            stop=self.stop,
            bound=bound,
            by_stage={number: self._stage_on_base(stage, model) for number, stage in by_stage.items()},
        )
        self._check(trial, place, listed or {})
        return trial

    def _training(self, varied: Mapping[str, Any], place: str) -> Training:
        """The settings with those that a grid varies; of equal ones, which most trials of a large grid have, the same object."""
        known = repr(varied)  # not the values: True equals 1
        if known not in self._trainings:
            try:
                self._trainings[known] = Training.model_validate({**self.training.model_dump(), **varied})
            except ValidationError as error:
                raise refusal(error, file=self.file, place=place) from error
        return self._trainings[known]

    def _on_base(self, point: Mapping[str, Any], place: str, listed: Mapping[str, Sequence[Any]]) -> LMM:
        try:
            return model_on_base(point["model"], point["recipe"])
        except UserError as error:
            where = _place_of("recipe", point["recipe"], place, listed)
            raise UserError(f"recipe {shown(point['recipe'].name)}: {error}", file=self.file, place=where) from error

    def _stage_on_base(self, settings: StageSettings, model: LMM) -> StageSettings:
        try:
            return stage_on_base(settings, model)
        except UserError as error:
            raise error.at(file=self.file) from error

    def _check(self, trial: Trial, place: str, listed: Mapping[str, Sequence[Any]]) -> None:
        try:
            assert trial.stages, "making them checks how often they are looked into"
            check_stages(trial.settings, place)
            for settings in trial.settings.values():
                check_stage_quantized(settings, trial.model, trial.evaluation.precision, place)
                check_optimizer(settings.training, settings.mitigation)
        except UserError as error:
            raise error.at(file=self.file) from error
        for settings in trial.settings.values():
            try:
                count_trained(settings.recipe, trial.model)
            except UserError as error:
                where = settings.place("recipe", _place_of("recipe", settings.recipe, place, listed))
                raise UserError(
                    f"recipe {shown(settings.recipe.name)}: {error}", file=self.file, place=where
                ) from error
            for part in settings.mitigation.parts if settings.mitigation else ():
                try:
                    part.check_model(trial.model)
                    part.check_trial(trial.skills, trial.probes)
                except UserError as error:
                    where = settings.place("mitigation", _place_of("mitigation", settings.mitigation, place, listed))
                    raise UserError(f"{part.name}: {error}", file=self.file, place=where) from error

    def _name(self, axes: Mapping[str, Any]) -> str:
        """`sa_proj · wise_ft(alpha=0.5) · lr 5e-6 · tiny-onevision · main · s0`: sorts by what differs most."""
        named = ["recipe", "mitigation", "learning_rate", "model", *(["order"] if len(self.orders) > 1 else [])]
        named += [name for name in axes if name not in FIXED]
        parts = [name_part(name, axes[name]) for name in [*named, "seed"]]
        return SEPARATOR.join(part for part in parts if part is not None)


def _place_of(axis: str, value: Any, place: str, listed: Mapping[str, Sequence[Any]]) -> str:
    """Where a value of an axis stands in the file; the axis where it is drawn."""
    values = list(listed.get(axis, ()))
    values = [plain_recipe(recipe) for recipe in values] if axis == "recipe" and value not in values else values
    return join(place, axis, *([values.index(value)] if value in values else ()))


def _all_at_once(training: Training, skills: int) -> Training:
    """The settings of a stage that teaches several skills: as many examples and updates as their stages have together."""
    more = {
        name: value * skills for name in ("examples", "max_steps") if (value := getattr(training, name)) is not None
    }
    return training.model_copy(update=more)


@dataclass(frozen=True)
class Space:
    """A grid with drawn axes, at one combination of the values that it lists: what one search proposes points of.

    `choices` holds what a chosen word stands for, by axis: recipes and mitigations by their names.
    """

    points: Points
    listed: Mapping[str, Any]
    draws: Mapping[str, Draw | Choice]
    choices: Mapping[str, Mapping[Any, Any]]
    settings: Optuna
    place: str

    def trial(self, point: Mapping[str, Any]) -> Trial:
        """The trial at a proposed point: plain values by drawn axis."""
        drawn = {name: self.choices[name][value] if name in self.choices else value for name, value in point.items()}
        return self.points.trial({**self.listed, **drawn}, self.place)

    @cached_property
    def num_points(self) -> int:
        """How many points the search makes: as many as the file asks for, or as there are."""
        sizes = [self._size(name, draw) for name, draw in self.draws.items()]
        return self.settings.trials if None in sizes else min(self.settings.trials, math.prod(filter(None, sizes)))

    def _size(self, name: str, draw: Draw | Choice) -> int | None:
        """How many values there are to draw; None for a range of numbers."""
        if name in self.choices:
            return len(self.choices[name])
        assert isinstance(draw, Draw)
        return int(draw.high - draw.low) + 1 if draw.kind == "int_uniform" else None

    def enumerate_points(self, most: int) -> Iterator[dict[str, Any]]:
        """The first `most` points of a space of choices and whole numbers; none where a range is not countable."""
        values: list[Sequence[Any]] = []
        for name, draw in self.draws.items():
            if name in self.choices:
                values.append(list(self.choices[name]))
            elif isinstance(draw, Draw) and draw.kind == "int_uniform":
                values.append(range(int(draw.low), int(draw.high) + 1)[:most])  # `product` lists each of them
            else:
                return
        for point in itertools.islice(itertools.product(*values), most):
            yield dict(zip(self.draws, point, strict=True))

    @cached_property
    def extremes(self) -> tuple[Trial, ...]:
        """Trials at the lowest, then at the highest values of all ranges, for each combination of choices; different ones.

        They stand for all that may be proposed: what is wrong there is refused before anything is spent.
        """
        trials: dict[str, Trial] = {}
        for side in (0, 1):
            values = [
                list(self.choices[name]) if isinstance(draw, Choice) or draw.choice else [(draw.low, draw.high)[side]]
                for name, draw in self.draws.items()
            ]
            for point in itertools.product(*values):
                trial = self.trial(dict(zip(self.draws, point, strict=True)))
                trials.setdefault(trial.key, trial)
        return tuple(trials.values())

    def lengths(self) -> Iterator[Trial]:
        """Trials with the fewest and the most updates that a stage may have: all ends of what decides that, together."""
        values = []
        for name, draw in self.draws.items():
            ends = self._drawn(name, draw)
            values.append(ends if name in LENGTH else ends[:1])
        for point in itertools.product(*values):
            yield self.trial(dict(zip(self.draws, point, strict=True)))

    @cached_property
    def key(self) -> str:
        """The name of the search: what it draws, towards what, and the trials at its corners. More points change nothing."""
        draws = {name: {draw.kind: self._drawn(name, draw)} for name, draw in self.draws.items()}
        corners = [trial.key for trial in self.extremes]
        return key_of({"kind": "search", "draws": draws, "corners": corners, **self.settings.identity()})

    def _drawn(self, name: str, draw: Draw | Choice) -> list[Any]:
        return list(self.choices[name]) if isinstance(draw, Choice) or draw.choice else [draw.low, draw.high]

    @property
    def label(self) -> str:
        """What is listed and what is drawn, in a line: `sa_proj · tiny-onevision · main · 0; learning_rate log_uniform …`."""
        shown = [_called(axis, value) for axis, value in self.listed.items() if value is not None]
        drawn = []
        for name, draw in self.draws.items():
            between = ", " if draw.kind == "choice" else " … "
            drawn.append(f"{name} {draw.kind} {between.join(map(_short, self._drawn(name, draw)))}")
        return f"{' · '.join(shown)}; {', '.join(drawn)}"


def _called(axis: str, value: Any) -> str:
    if axis in ("model", "recipe"):
        return str(value.name)
    return str(value.label) if axis == "mitigation" else str(value) if axis == "order" else f"{axis} {_short(value)}"


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def check_updates(
    evaluation: Evaluation, probes: Sequence[Probe], trials: Iterable[Trial], spaces: Iterable[Space], file: str
) -> None:
    """Refuse what would look inside stages, but only after updates that no stage has."""
    asked = [(f"{probe.name}.updates", probe.updates, join("probes", i)) for i, probe in enumerate(probes)]
    asked += [("updates", evaluation.updates, "evaluation"), ("every", (evaluation.every or 0,), "evaluation")]
    asked = [(what, updates, place) for what, updates, place in asked if any(updates)]
    if not asked:
        return
    trials = [*trials, *(trial for space in spaces for trial in space.lengths())]
    lengths = [step.updates for trial in trials for step in trial.steps().values() if isinstance(step, Finetune)]
    known = [length for length in lengths if length is not None]
    for what, updates, place in asked if known and len(known) == len(lengths) else ():
        if max(known) < updates[0]:
            raise UserError(
                f"{what}: no stage has {updates[0]} updates; allowed: 1 to {max(known)}", file=file, place=place
            )
