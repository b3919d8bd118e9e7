"""Our figures beside published ones: what papers report, matched to a sweep's trials by what they computed.

The figures ship as data, one file a paper, each with where it stands and what it is of (`published_figures/`). A trial has a
figure's counterpart when it taught the same skills, in the same order, to the same model with the same recipe (what it
trains), mitigation and learning rate, and asked the same held-out benchmarks where the figure says which; names that a sweep
file chose for itself play no part. A figure is compared with ours at the stage that it is of, and with nothing before that
stage is recorded. A trial that taught or asked less than all there is says so in the note of its rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from lmmcl.errors import UserError, unknown
from lmmcl.evaluation.measures import MEASURES
from lmmcl.methods.recipes import Recipe, get_recipe
from lmmcl.reports.results import Interval, StageResult, SweepResults, TrialResult, finite, finite_pair
from lmmcl.spec.door import read_yaml, validate
from lmmcl.spec.settings import Settings
from lmmcl.spec.sweep import Sweep
from lmmcl.spec.trial import Trial

SHIPPED = "published"
FOLDER = Path(__file__).with_name("published_figures")
MEANS = ("held_out_mean", "mean_score")
FORMS = (*MEASURES, *MEANS, "score/<benchmark>", "cell/<image>/<text>")


class Of(Settings):
    """What a figure is of. What is not given is not asked for, but for the mitigation: without one none is meant."""

    model: tuple[str, ...]
    skills: tuple[str | tuple[str, ...], ...] = Field(description="in the order taught, or several such orders")
    recipe: str | None = None
    trains: tuple[str, ...] | None = Field(default=None, description="role selectors, for a recipe that has no name")
    settings: Mapping[str, Any] = Field(default_factory=dict, description="of the recipe's adapter")
    learning_rates: Mapping[str, float] = Field(default_factory=dict, description="of roles with one of their own")
    mitigation: str | Mapping[str, Mapping[str, Any]] | None = None
    learning_rate: float | None = None
    held_out: tuple[str, ...] | None = Field(default=None, description="the held-out benchmarks, in any order")

    @model_validator(mode="after")
    def _recipe_is_known(self) -> Of:
        try:
            _ = self.shipped
        except UserError as error:
            raise ValueError(str(error)) from error
        return self

    @cached_property
    def shipped(self) -> Recipe | None:
        """The recipe by name with its settings; None where the figure's has no name."""
        if self.recipe is None:
            return None
        return get_recipe({self.recipe: dict(self.settings)} if self.settings else self.recipe)

    @property
    def orders(self) -> tuple[tuple[str, ...], ...]:
        """The orders of skills that it is of."""
        if all(isinstance(each, str) for each in self.skills):
            return (tuple(str(each) for each in self.skills),)
        return tuple((each,) if isinstance(each, str) else each for each in self.skills)

    def covers(self, trial: Trial) -> bool:
        """Whether `trial` computes what the figure is of."""
        return (
            trial.model.name in self.model
            and tuple(skill.name for skill in trial.skills) in self.orders
            and self._trains_like(trial.recipe)
            and (self.learning_rate is None or trial.training.learning_rate == self.learning_rate)
            and (self.held_out is None or set(self.held_out) == {each.name for each in trial.held_out})
            and self._protects_like(trial)
        )

    def _trains_like(self, recipe: Recipe) -> bool:
        """Whether a recipe trains the same, whatever its name; one without a name has an adapter where it has settings."""
        if dict(recipe.learning_rates) != dict(self.learning_rates):
            return False
        if self.trains is not None and recipe.train != tuple(sorted(set(self.trains))):
            return False
        if self.shipped is not None:
            return (recipe.train, recipe.adapter) == (self.shipped.train, self.shipped.adapter)
        if not self.settings:
            return recipe.adapter is None or self.trains is None
        return all(getattr(recipe.adapter, name, None) == value for name, value in self.settings.items())

    def _protects_like(self, trial: Trial) -> bool:
        if self.mitigation is None or trial.mitigation is None:
            return self.mitigation is None and trial.mitigation is None
        wanted = {self.mitigation: {}} if isinstance(self.mitigation, str) else self.mitigation
        return any(
            trial.mitigation.name == name
            and all(getattr(trial.mitigation, key, None) == value for key, value in settings.items())
            for name, settings in wanted.items()
        )

    def __str__(self) -> str:
        parts = [" or ".join(self.model), self.recipe or ", ".join(self.trains or ())]
        if self.mitigation is not None:
            parts.append(self.mitigation if isinstance(self.mitigation, str) else ", ".join(self.mitigation))
        return " · ".join([*parts, *([f"lr {self.learning_rate:g}"] if self.learning_rate else [])])


class Figure(Settings):
    """Values of one setting, from one place of a paper. A value's name is one of FORMS, with `@3` for after stage 3."""

    of: Of
    where: str
    values: Mapping[str, float] = Field(min_length=1)
    approximate: tuple[str, ...] = Field(
        default=(), description="values that were read off a picture, or are told as about"
    )
    note: str = ""

    @field_validator("values")
    @classmethod
    def _known(cls, values: Mapping[str, float]) -> Mapping[str, float]:
        for name in values:
            quantity, _, stage = name.partition("@")
            plain = quantity in (*MEASURES, *MEANS)
            if not (plain or quantity.startswith(("score/", "cell/"))) or not (stage.isdigit() or "@" not in name):
                raise ValueError(unknown("quantity", name, FORMS))
        return values


class Publication(Settings):
    """One file of figures: the paper, its figures, and what it claims without one."""

    paper: str
    source: str
    sweeps: tuple[str, ...] = Field(default=(), description="sweeps that ship and ask the same")
    claims: tuple[str, ...] = ()
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Row:
    """One published value and ours: points, ours None while its stage is not recorded (or not defined)."""

    quantity: str
    stage: int
    published: float
    approximate: bool
    ours: float | None
    interval: Interval | None
    source: str
    note: str

    @property
    def difference(self) -> float | None:
        """Ours − published."""
        return None if self.ours is None else self.ours - self.published


@dataclass(frozen=True)
class Beside:
    """A trial with the published values that it is held against; none where nothing was published of it."""

    trial: TrialResult
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Comparison:
    """A sweep beside what was published, and what the same papers claim without a figure."""

    sweep: str
    trials: tuple[Beside, ...]
    claims: tuple[str, ...]


def publications(against: str = SHIPPED) -> list[Publication]:
    """The figures that ship (`published`), or those of a YAML file in the same form; raises UserError for anything else."""
    if against == SHIPPED:
        return [_read(path) for path in sorted(FOLDER.glob("*.yaml"))]
    if not against.endswith((".yaml", ".yml")):
        raise UserError(f"{unknown('figures', against, [SHIPPED])}, or a YAML file in the form of {FOLDER.name}/*.yaml")
    return [_read(Path(against))]


def _read(path: Path) -> Publication:
    return validate(Publication, read_yaml(path), file=str(path))


def hold_against(sweep: Sweep, results: SweepResults, against: str = SHIPPED) -> Comparison:
    """The trials of `results` beside published figures; with several seeds a row is their mean.

    Raises UserError, with what there is, when no trial of the sweep has a published figure.
    """
    papers = publications(against)
    trials = {trial.key: trial for trial in sweep.trials}
    beside = []
    for result in results.trials:
        trial = trials[(result.seeds or (result,))[0].key]
        beside.append(Beside(result, tuple(_rows(trial, result, papers))))
    claims = [f"{paper.source}: {claim}" for paper in papers if _concerns(paper, sweep) for claim in paper.claims]
    if not any(each.rows for each in beside):
        raise UserError(_nothing(papers, claims), file=sweep.file)
    return Comparison(sweep.name, tuple(beside), tuple(claims))


def _concerns(paper: Publication, sweep: Sweep) -> bool:
    covered = any(figure.of.covers(trial) for figure in paper.figures for trial in sweep.trials)
    return covered or sweep.name in paper.sweeps


def _nothing(papers: Sequence[Publication], claims: Sequence[str]) -> str:
    """Why there is nothing to compare with: what is claimed of this sweep, then all that has figures."""
    asked = "model, skills, recipe, mitigation, learning rate and held-out benchmarks"
    lines = [f"no trial of this sweep has a published figure (by {asked})"]
    lines += [f"  claimed without a figure: {claim}" for claim in claims]
    lines.append("there are figures of:")
    for paper in papers:
        told = list(dict.fromkeys(str(figure.of) for figure in paper.figures))
        files = ", ".join(f"sweeps/{name}.yaml" for name in paper.sweeps)
        lines += [f"  {paper.source} ({files}): {'; '.join(told)}"] if told else []
    return "\n".join(lines)


def _rows(trial: Trial, result: TrialResult, papers: Sequence[Publication]) -> Iterator[Row]:
    last = len(trial.skills)
    reached = {stage.number: stage for stage in result.stages}
    limited = _limited(trial)
    for paper in papers:
        for figure in paper.figures:
            if not figure.of.covers(trial):
                continue
            note = "; ".join(each for each in (figure.note, limited) if each)
            for name, published in figure.values.items():
                quantity, _, number = name.partition("@")
                stage = int(number) if number else last
                ours, interval = _ours(quantity, reached[stage], result) if stage in reached else (None, None)
                about, source = name in figure.approximate, f"{paper.source}: {figure.where}"
                yield Row(quantity, stage, published, about, ours, interval, source, note)


def _limited(trial: Trial) -> str:
    """What of the skills and benchmarks a trial left out by its settings; empty for one that took all."""
    limits = {
        "training examples of each skill": trial.training.examples,
        "updates of each stage": trial.training.max_steps,
        "questions of each benchmark": trial.evaluation.limit,
    }
    told = [f"{number} {what}" for what, number in limits.items() if number is not None]
    return f"ours is limited to {', '.join(told)}" if told else ""


def _ours(quantity: str, stage: StageResult, trial: TrialResult) -> tuple[float | None, Interval | None]:
    """Our value of a quantity after a stage, and its interval where there is one."""
    if quantity in MEASURES:
        return finite(stage.measures.get(quantity)), finite_pair(stage.intervals.get(quantity))
    kind, _, rest = quantity.partition("/")
    if kind == "score":
        return finite(stage.scores.get(rest)), None
    if kind == "cell":
        cell = next((each for each in stage.cells if f"{each.image}/{each.text}" == rest), None)
        bounds = None if cell is None or cell.low is None or cell.high is None else (cell.low, cell.high)
        return (None if cell is None else finite(cell.change)), finite_pair(bounds)
    return _mean(stage, trial.held_out if quantity == "held_out_mean" else trial.benchmarks()), None


def _mean(stage: StageResult, names: Sequence[str]) -> float | None:
    found = [finite(stage.scores.get(name)) for name in names]
    known = [value for value in found if value is not None]
    return sum(known) / len(known) if known and len(known) == len(found) else None
