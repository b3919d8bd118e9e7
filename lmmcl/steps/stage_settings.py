"""What one stage of a trial does: its recipe, its mitigation and its training settings, which may differ from the grid point's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lmmcl.config.settings import Training
from lmmcl.errors import UserError
from lmmcl.methods.mitigation import Mitigation
from lmmcl.methods.recipes.adapters import Adapter
from lmmcl.methods.recipes.recipe import Recipe


@dataclass(frozen=True)
class StageSettings:
    """How one skill is taught. `places` says where a setting that differs from the grid point's was written."""

    recipe: Recipe
    mitigation: Mitigation | None
    training: Training
    places: tuple[tuple[str, str], ...] = ()

    def place(self, setting: str, default: str) -> str:
        """Where a setting stands in the sweep file."""
        return dict(self.places).get(setting, default)


def check_stages(stages: Mapping[int, StageSettings], place: str) -> None:
    """Raise UserError where the stages of one trial, by number, do not go together; it names the place in the file.

    `place` is that of the grid. Merges of one trial must agree on where the next stage starts, and the experts that a stage adds
    stay in the model.
    """
    numbers = sorted(stages)
    for number in numbers:
        _check_mitigation(stages, number, place)
    _check_experts([stages[number] for number in numbers], place)
    _check_merges([stages[number] for number in numbers], place)


def _check_mitigation(stages: Mapping[int, StageSettings], number: int, place: str) -> None:
    """A merge also meets what the stages before it have trained."""
    settings = stages[number]
    for part in settings.mitigation.parts if settings.mitigation else ():
        for earlier in range(1, number + 1) if part.merges else (number,):
            if earlier in stages:
                try:
                    part.check_recipe(stages[earlier].recipe)
                except UserError as error:
                    raise error.at(place=settings.place("mitigation", f"{place}.mitigation")) from error


def _check_experts(stages: Sequence[StageSettings], place: str) -> None:
    """Experts stay in the model: later stages train those that there are, in the same layers or in more."""
    adapters = [settings.recipe.adapter for settings in stages]
    growing = [adapter for adapter in adapters if adapter is not None and adapter.adds_experts]
    if not growing or all(adapter in growing and _same_experts(adapter, growing[0]) for adapter in adapters):
        return
    odd = next(settings for settings in stages if settings.places)
    kinds = sorted({adapter.kind for adapter in growing})
    if len(growing) < len(adapters):
        problem = (
            f"some stages of a trial add experts ({', '.join(kinds)}) and others do not; experts stay in the model, so allowed: "
            f"{' or '.join(kinds)} in all stages or in none"
        )
    else:
        problem = "the stages of a trial add different experts, and experts stay in the model; allowed: the same in all stages"
    raise UserError(problem, place=odd.place("recipe", f"{place}.recipe"))


def _same_experts(one: Adapter | None, other: Adapter) -> bool:
    return one is not None and one.model_copy(update={"targets": other.targets}) == other


def _check_merges(stages: Sequence[StageSettings], place: str) -> None:
    merges = [settings.mitigation.merges for settings in stages if settings.mitigation and settings.mitigation.merges]
    starts = sorted({first.continues_from for first, *_ in merges})
    odd = next((settings for settings in stages if dict(settings.places).get("mitigation")), None)
    where = odd.place("mitigation", place) if odd else f"{place}.mitigation"
    if len(starts) > 1:
        raise UserError(
            f"the merges of one trial differ in continues_from ({', '.join(starts)}); allowed: the same in all stages",
            place=where,
        )
    if starts == ["base"] and len(merges) < len(stages):
        raise UserError(
            "a merge with continues_from: base combines the fine-tunes of all stages, and some stages have no merge; allowed: a "
            "merge in every stage, or continues_from: merged or tuned",
            place=where,
        )
