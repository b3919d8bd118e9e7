"""`base` of a recipe becomes a setting of its trial's model, so that stage 0 and every evaluation have the same weights."""

from __future__ import annotations

from dataclasses import replace

from lmmcl.errors import UserError
from lmmcl.methods.recipes.recipe import Recipe
from lmmcl.models.lmm import LMM
from lmmcl.steps.stage_settings import StageSettings


def model_on_base(model: LMM, recipe: Recipe) -> LMM:
    """The model as `recipe` wants it held. Raises UserError where `models:` wants it otherwise."""
    wanted, of_model = recipe.base, model.settings.base
    if wanted is None or wanted == of_model:
        return model
    if of_model is not None:
        raise UserError(
            f"its base is {wanted.describe()}, and `models:` sets {of_model.describe()} for {model.name}; leave out one of them"
        )
    return model.with_settings(model.settings.model_copy(update={"base": wanted}))


def plain_recipe(recipe: Recipe) -> Recipe:
    """The recipe over whatever the model is: what is left once the model has the base."""
    return recipe.model_copy(update={"base": None}) if recipe.base else recipe


def stage_on_base(settings: StageSettings, model: LMM) -> StageSettings:
    """The settings of a stage of a trial of `model`. Raises UserError where its recipe wants another base than the others."""
    own = settings.recipe.base
    if own is not None and own != model.settings.base:
        others = model.settings.base.describe() if model.settings.base else "not quantised"
        raise UserError(
            f"recipe {settings.recipe.name}: its base is {own.describe()}, and the other stages of the trial are {others}; all "
            "stages have one base: set it in the grid's recipe or in `models:`",
            place=settings.place("recipe", "recipe"),
        )
    return replace(settings, recipe=plain_recipe(settings.recipe))
