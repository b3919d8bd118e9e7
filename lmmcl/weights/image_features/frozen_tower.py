"""The vision tower and projector of a loaded checkpoint, where what they make of an image can be used again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lmmcl.models.experts import roles_in
from lmmcl.models.lmm import LMM
from lmmcl.steps.frozen_vision import can_cache, is_vision
from lmmcl.weights.image_features.pictures import METHOD
from lmmcl.weights.quantized_base import named_tensors

if TYPE_CHECKING:
    from torch.nn import Module

    from lmmcl.weights.checkpoint import Loaded


class FrozenTower(NamedTuple):
    """The part of a model that makes features, the modules whose mode matters, and the names of all tensors that they depend on."""

    owner: Any
    modules: list[Module]
    tensors: list[str]


def makes_features(lmm: LMM, loaded: Loaded) -> bool:
    """Whether a model's family computes features in one call."""
    return can_cache(lmm) and hasattr(type(getattr(loaded.model, "model", None)), METHOD)


def frozen_tower(
    lmm: LMM, loaded: Loaded, roles: Mapping[str, str] | None = None, learns: Sequence[str] = ()
) -> FrozenTower | None:
    """None where the family does not compute features in one call, or where tower and projector are not the base's, have something
    added or are among what `learns`. `roles` are those of its parameters, where adapters have changed their names."""
    if not makes_features(lmm, loaded):
        return None
    model: Any = loaded.model
    vision = {name for name, role in (roles or roles_in(lmm, model)).items() if is_vision(role)}
    holders = sorted({name.rpartition(".")[0] for name in vision})
    tensors = vision | _buffers_beside(vision, model)
    if vision & set(learns) or tensors & set(loaded.changed) or not tensors <= loaded.base.digests.keys():
        return None
    # The vector that ends a row of patches lies in the model itself, whose mode is that of the language model.
    modules = [module for name in holders if (module := model.get_submodule(name)) is not model.model]
    return FrozenTower(model.model, modules, sorted(tensors))


def _buffers_beside(vision: set[str], model: Any) -> set[str]:
    """The buffers of a model's vision: those in the smallest module with parameters around them where all of these are `vision`."""
    parameters = [name for name, _ in model.named_parameters()]
    return {name for name in named_tensors(model).keys() - set(parameters) if set(_nearest(name, parameters)) <= vision}


def _nearest(buffer: str, parameters: Sequence[str]) -> list[str]:
    """The parameters of the smallest module that holds a buffer and has any."""
    parts = buffer.split(".")[:-1]
    while parts and not (near := [name for name in parameters if name.startswith(".".join(parts) + ".")]):
        parts.pop()
    return near if parts else list(parameters)
