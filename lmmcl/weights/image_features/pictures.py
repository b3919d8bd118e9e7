"""A call for the features of several pictures, taken apart into calls for one picture each.

A picture that is worked out by itself has the same bits whatever batch it comes in: matrix products of other sizes are rounded
otherwise. So what pads it to the others of its batch (crops that a smaller picture has not, pixels beside it) is left off.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

METHOD = "get_image_features"
FROM_CONFIG = ("vision_feature_layer", "vision_feature_select_strategy", "vision_aspect_ratio")
"""Arguments whose default is what the model's configuration says."""
Arguments = dict[str, Any]


@dataclass(frozen=True)
class Picture:
    """What one picture is worked out from: tensors by the names of their arguments, and other arguments."""

    tensors: Mapping[str, Tensor]
    settings: Mapping[str, Any]

    @property
    def arguments(self) -> Arguments:
        """For a call with this picture alone."""
        return {**self.tensors, **self.settings, "return_dict": True}


def signature_of(owner: Any) -> inspect.Signature:
    """Of the method that makes features, as it is called."""
    return inspect.signature(getattr(type(owner), METHOD).__get__(owner))


def take_apart(owner: Any, family: str, args: Sequence[Any], more: Mapping[str, Any]) -> list[Picture] | None:
    """The pictures of a call of `owner`'s method; None for a call that asks for more than features, or has arguments that it
    does not know."""
    import torch

    named = _by_name(owner, args, more)
    if not named.pop("return_dict", False):
        return None
    tensors = {name: value for name, value in named.items() if isinstance(value, torch.Tensor)}
    settings = {name: value for name, value in named.items() if name not in tensors}
    if not _are_plain(settings) or settings.get("output_hidden_states") or settings.get("output_attentions"):
        return None
    parts = SPLITS[family](owner, tensors)
    return None if parts is None else [Picture(part, settings) for part in parts]


def _by_name(owner: Any, args: Sequence[Any], more: Mapping[str, Any]) -> Arguments:
    """The arguments by name, without those that say what the model's configuration says: training gives them, and evaluation
    leaves them out."""
    signature = signature_of(owner)
    named = dict(signature.bind(*args, **more).arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            named |= named.pop(name, {})
    usual = {name: getattr(owner.config, name, None) for name in FROM_CONFIG}
    return {
        name: value
        for name, value in named.items()
        if value is not None and not (name in FROM_CONFIG and value == usual[name])
    }


def _are_plain(settings: Mapping[str, Any]) -> bool:
    try:
        json.dumps(settings)
    except TypeError:
        return False
    return True


def _views(owner: Any, tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]] | None:
    """LLaVA: one view a picture; of Pixtral's tower with its size, beside which it is filled up."""
    pixels, sizes = tensors.get("pixel_values"), tensors.get("image_sizes")
    if pixels is None or pixels.dim() != 4 or tensors.keys() - {"pixel_values", "image_sizes"}:
        return None
    if sizes is None:
        return [{"pixel_values": view} for view in pixels.split(1)]
    return [
        {"pixel_values": view[:, :, : int(size[0, 0]), : int(size[0, 1])], "image_sizes": size}
        for view, size in zip(pixels.split(1), sizes.split(1), strict=True)
    ]


def _tiles(owner: Any, tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]] | None:
    """LLaVA-NeXT and LLaVA-OneVision: the whole picture and its tiles, one after another or filled up to the picture with most of
    them; of several pictures in a row of LLaVA-OneVision the whole ones alone."""
    import torch
    from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

    pixels, sizes, per_row = (tensors.get(name) for name in ("pixel_values", "image_sizes", "batch_num_images"))
    unknown = tensors.keys() - {"pixel_values", "image_sizes", "batch_num_images"}
    if pixels is None or sizes is None or pixels.dim() not in (4, 5) or unknown:
        return None
    tiled = [True] * len(sizes) if per_row is None else [n == 1 for n in per_row.tolist() for _ in range(n)]
    grids, edge = owner.config.image_grid_pinpoints, owner.config.vision_config.image_size
    counts = [
        image_size_to_num_patches(size, grids, edge) if in_tiles else 1
        for size, in_tiles in zip(sizes, tiled, strict=True)
    ]
    if pixels.dim() == 4:
        views = pixels.split(counts)
    else:
        views = tuple(view[:, :count] for view, count in zip(pixels.split(1), counts, strict=True))
    # 2 stands for several pictures: the model then takes the whole one of each size that it is given.
    whole = {"batch_num_images": torch.tensor([2], device=sizes.device)}
    return [
        {"pixel_values": view, "image_sizes": size, **({} if in_tiles else whole)}
        for view, size, in_tiles in zip(views, sizes.split(1), tiled, strict=True)
    ]


def _patches(owner: Any, tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]] | None:
    """Qwen-VL: the patches of all pictures one after another."""
    pixels, grids = tensors.get("pixel_values"), tensors.get("image_grid_thw")
    if pixels is None or grids is None or pixels.dim() != 2 or tensors.keys() - {"pixel_values", "image_grid_thw"}:
        return None
    counts = grids.prod(-1).tolist()
    return [
        {"pixel_values": patches, "image_grid_thw": grid}
        for patches, grid in zip(pixels.split(counts), grids.split(1), strict=True)
    ]


SPLITS: dict[str, Callable[[Any, Mapping[str, Tensor]], list[dict[str, Tensor]] | None]] = {
    "llava": _views,
    "llava_next": _tiles,
    "llava_onevision": _tiles,
    "qwen2_vl": _patches,
    "qwen2_5_vl": _patches,
}
"""By family; those of `lmmcl.steps.frozen_vision`."""
