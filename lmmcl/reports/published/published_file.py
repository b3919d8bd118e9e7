"""The files of published figures: what they may hold, what a figure is of, and which trials compute that."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from lmmcl.config.settings import Settings
from lmmcl.config.validation import read_yaml, validate
from lmmcl.errors import UserError, unknown
from lmmcl.measures import MEASURES, OLD_NAMES
from lmmcl.methods.mitigation import Mitigation
from lmmcl.methods.recipes.recipe import Recipe, get_recipe
from lmmcl.steps.stage_settings import StageSettings
from lmmcl.steps.trial import Trial

SHIPPED = "published"
FOLDER = Path(__file__).with_name("published_figures")
MEANS = ("held_out_mean", "mean_score")
RETENTIONS = ("original_retention", "target_retention")
"""In percent: the mean score of the held-out benchmarks over that of the pre-trained model, and that of the skills' own over the
mean score of the same trial without a mitigation, which is the fine-tune."""
FORMS = (*MEASURES, *MEANS, *RETENTIONS, "score/<benchmark>", "cell/<image>/<text>")


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
        if all(isinstance(entry, str) for entry in self.skills):
            return (tuple(str(entry) for entry in self.skills),)
        return tuple((entry,) if isinstance(entry, str) else entry for entry in self.skills)

    def covers(self, trial: Trial) -> bool:
        """Whether `trial` computes what the figure is of."""
        return (
            trial.model.name in self.model
            and tuple(skill.name for skill in trial.skills) in self.orders
            and all(self._teaches_like(settings) for settings in trial.settings.values())
            and (self.held_out is None or set(self.held_out) == {benchmark.name for benchmark in trial.held_out})
        )

    def _teaches_like(self, settings: StageSettings) -> bool:
        """Whether a stage is taught as the figure's; how long may differ."""
        return (
            self._trains_like(settings.recipe)
            and (self.learning_rate is None or settings.training.learning_rate == self.learning_rate)
            and self._protects_like(settings.mitigation)
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

    def _protects_like(self, mitigation: Mitigation | None) -> bool:
        if self.mitigation is None or mitigation is None:
            return self.mitigation is None and mitigation is None
        wanted = {self.mitigation: {}} if isinstance(self.mitigation, str) else self.mitigation
        return any(
            mitigation.name == name and all(getattr(mitigation, key, None) == value for key, value in settings.items())
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
    approximate: tuple[str, ...] = Field(default=(), description="values read off a figure, or given as approximate")
    second_hand: str = Field(default="", description="who tells the figure, where the paper itself was not read")
    note: str = ""

    @model_validator(mode="after")
    def _approximate_are_values(self) -> Figure:
        known = {OLD_NAMES.get(name.partition("@")[0], name) for name in self.values} | set(self.values)
        if wrong := [name for name in self.approximate if name not in known]:
            raise ValueError(unknown("value that is approximate", wrong[0], self.values))
        return self

    @field_validator("values")
    @classmethod
    def _known(cls, values: Mapping[str, float]) -> Mapping[str, float]:
        known = {}
        for name, value in values.items():
            written, at, stage = name.partition("@")
            quantity = OLD_NAMES.get(written, written)
            known[f"{quantity}{at}{stage}"] = value
            plain = quantity in (*MEASURES, *MEANS, *RETENTIONS)
            if not (plain or quantity.startswith(("score/", "cell/"))) or not (stage.isdigit() or "@" not in name):
                raise ValueError(unknown("quantity", name, FORMS))
        return known


class Publication(Settings):
    """One file of figures: the paper, its figures, and what it claims without one."""

    paper: str
    source: str
    sweeps: tuple[str, ...] = Field(default=(), description="sweeps of this repository that reproduce it")
    claims: tuple[str, ...] = ()
    contradictions: tuple[str, ...] = Field(default=(), description="figures that cannot all be of one trial, and why")
    figures: tuple[Figure, ...]


def publications(against: str = SHIPPED) -> list[Publication]:
    """The figures that ship (`published`), or those of a YAML file in the same form; raises UserError for anything else."""
    if against == SHIPPED:
        return [_read(path) for path in sorted(FOLDER.glob("*.yaml"))]
    if not against.endswith((".yaml", ".yml")):
        raise UserError(f"{unknown('figures', against, [SHIPPED])}, or a YAML file in the form of {FOLDER.name}/*.yaml")
    return [_read(Path(against))]


def _read(path: Path) -> Publication:
    return validate(Publication, read_yaml(path), file=str(path))
