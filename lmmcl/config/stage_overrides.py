"""Settings that depend on the skill or on the stage: `per_skill` and `per_stage` of a sweep file, looked up and checked.

A stage has the settings of its grid point, over these what `per_skill` says of its skill, and over these what `per_stage` says
of its number. Only what is in force enters the stage's key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from lmmcl.config.name_lookup import Names
from lmmcl.config.settings import Training
from lmmcl.config.sweep_file import SweepFile
from lmmcl.config.trial_names import name_part
from lmmcl.config.validation import join, refusal
from lmmcl.errors import UserError, unknown
from lmmcl.steps.stage_settings import StageSettings
from lmmcl.tasks.skills import Skill


@dataclass(frozen=True)
class Override:
    """Settings by name, where recipes and mitigations are looked up already, and the place at which they were written."""

    place: str
    values: Mapping[str, Any]

    def describe(self) -> str:
        """`epochs 3 · sa_proj`."""
        parts = (name_part(name, _shown(name, value)) or f"{name} none" for name, value in self.values.items())
        return " · ".join(parts)


@dataclass(frozen=True)
class StageOverrides:
    """All overrides of a sweep file, by skill and by number of the stage. Picklable, as the points that use it."""

    skills: Mapping[str, Override] = field(default_factory=dict)
    stages: Mapping[int, Override] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.skills or self.stages)

    def describe(self) -> list[str]:
        """A line for each: `skill counting: epochs 3`, `stage 2: lr 1e-4`."""
        lines = [f"skill {name}: {override.describe()}" for name, override in self.skills.items()]
        return lines + [f"stage {number}: {override.describe()}" for number, override in sorted(self.stages.items())]

    def settings(self, point: StageSettings, skills: Sequence[Skill], file: str) -> dict[int, StageSettings]:
        """By number, the settings of those stages that differ from the grid point's."""
        return {
            number: self._settings(point, overrides, file)
            for number, skill in enumerate(skills, start=1)
            if (
                overrides := [
                    override for override in (self.skills.get(skill.name), self.stages.get(number)) if override
                ]
            )
        }

    def _settings(self, point: StageSettings, overrides: Sequence[Override], file: str) -> StageSettings:
        values = {name: value for override in overrides for name, value in override.values.items()}
        places = {name: join(override.place, name) for override in overrides for name in override.values}
        changed = {name: value for name, value in values.items() if name in Training.model_fields}
        try:
            training = Training.model_validate({**point.training.model_dump(), **changed})
        except ValidationError as error:  # a value that is right alone and wrong beside those of the grid point
            raise refusal(error, file=file, place=overrides[-1].place) from error
        return StageSettings(
            recipe=values.get("recipe", point.recipe),
            mitigation=values.get("mitigation", point.mitigation),
            training=training,
            places=tuple(sorted(places.items())),
        )


def read_overrides(entry: SweepFile, names: Names, file: str) -> StageOverrides:
    """The overrides of a file; raises UserError for skills and stages that no order has, and for names that are unknown."""
    taught = {skill.name for skills in names.orders.values() for skill in skills}
    longest = max(len(skills) for skills in names.orders.values())
    for name in entry.per_skill:
        if name not in taught:
            raise UserError(unknown("skill of an order", name, taught), file=file, place=join("per_skill", name))
    for number in entry.per_stage:
        if number > longest:
            raise UserError(
                f"no order has {number} stages; allowed: 1 to {longest}",
                file=file,
                place=join("per_stage", str(number)),
            )
    return StageOverrides(
        {name: _override(override, join("per_skill", name), names, file) for name, override in entry.per_skill.items()},
        {
            number: _override(override, join("per_stage", str(number)), names, file)
            for number, override in entry.per_stage.items()
        },
    )


def _override(entry: Any, place: str, names: Names, file: str) -> Override:
    named = [name for name in type(entry).model_fields if name in entry.model_fields_set]
    if not named:
        raise UserError(f"sets nothing; allowed: {', '.join(type(entry).model_fields)}", file=file, place=place)
    return Override(place, {name: names.value(name, getattr(entry, name), join(place, name)) for name in named})


def _shown(name: str, value: Any) -> Any:
    """A value as the axes of trials hold it."""
    if name == "recipe":
        return value.name
    return (value.label if value else None) if name == "mitigation" else value
