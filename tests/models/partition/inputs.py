"""What a small model of any type is shown: a text alone, the picture that some types need beside it, a picture alone."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

TOKENS = 24


def text_inputs(model: Any) -> dict[str, Any]:
    import torch

    ids = torch.randint(5, 200, (1, TOKENS))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    accepted = inspect.signature(model.forward).parameters
    if "decoder_input_ids" in accepted:
        inputs["decoder_input_ids"] = ids[:, :8]
    if "bbox" in accepted:
        inputs["bbox"] = torch.rand(1, TOKENS, 4)
    if "use_cache" in accepted or "kwargs" in accepted:
        inputs["use_cache"] = False
    return {name: value for name, value in inputs.items() if name in accepted or "kwargs" in accepted}


def _picture(model: Any, *lead: int) -> Any:
    import torch

    vision = getattr(model.config, "vision_config", None) or getattr(model.config, "encoder", None)
    side = getattr(vision, "image_size", None) or 32
    side = side[0] if isinstance(side, list | tuple) else side
    return torch.randn(*lead, 3, side, side)


def _with_query_tokens(model: Any) -> dict[str, Any]:
    """BLIP-2 and its kin put the Q-Former's answers in the place of image tokens."""
    import torch

    frames = (1, 4) if "video" in model.config.model_type else (1,)
    count = model.config.num_query_tokens * (frames[-1] if len(frames) > 1 else 1)
    token = getattr(model.config, "image_token_index", None) or getattr(model.config, "video_token_index", None)
    ids = torch.cat([torch.full((1, count), token), torch.randint(5, 200, (1, 8))], dim=1)
    inputs = {"pixel_values": _picture(model, *frames), "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if "qformer_input_ids" in inspect.signature(model.forward).parameters:
        inputs["qformer_input_ids"] = torch.randint(5, 20, (1, 6))
    return inputs


def _kosmos(model: Any) -> dict[str, Any]:
    import torch

    places = torch.zeros(1, TOKENS, dtype=torch.long)
    places[0, 2 : 2 + model.config.latent_query_num] = 1
    return {**text_inputs(model), "pixel_values": _picture(model, 1), "image_embeds_position_mask": places}


def _flattened(model: Any) -> dict[str, Any]:
    import torch

    patches = torch.randn(1, 16, 2 + model.config.vision_config.patch_embed_hidden_size)
    patches[..., :2] = 1
    return {"flattened_patches": patches, "decoder_input_ids": torch.randint(5, 200, (1, 8))}


def _answered(model: Any) -> dict[str, Any]:
    import torch

    return {"pixel_values": _picture(model, 1), "decoder_input_ids": torch.randint(5, 200, (1, 8))}


def _idefics(model: Any) -> dict[str, Any]:
    import torch

    return {
        **text_inputs(model),
        "pixel_values": _picture(model, 1, 1),
        "image_attention_mask": torch.ones(1, TOKENS, 1),
    }


WITH_PICTURE = {
    "blip": lambda model: {**text_inputs(model), "pixel_values": _picture(model, 1)},
    "blip-2": _with_query_tokens,
    "instructblip": _with_query_tokens,
    "instructblipvideo": _with_query_tokens,
    "idefics": _idefics,
    "kosmos-2": _kosmos,
    "pix2struct": _flattened,
    "pp_formulanet": _answered,
    "vision-encoder-decoder": _answered,
}
"""Types that take no text without a picture."""

INNER = {"llama4": "language_model", "pi0": "model.vlm.language_model"}
"""Types whose whole model does not run on a text alone, and the module that stands for it."""


def run(model: Any) -> bool:
    """A forward pass, of a text alone where the type takes one; returns whether it had a picture."""
    model_type = model.config.model_type
    if model_type in WITH_PICTURE:
        model(**WITH_PICTURE[model_type](model))
        return True
    part = model.get_submodule(INNER.get(model_type, ""))
    part(**text_inputs(part))
    return False


def image_inputs(model: Any, method: Any) -> Iterator[dict[str, Any]]:
    """What one picture may look like to a vision tower: patches with their grid, a picture, tiles of it."""
    import torch

    accepted = inspect.signature(inspect.unwrap(method)).parameters
    vision = getattr(model.config, "vision_config", None) or model.config
    side, patch = (
        _first(getattr(vision, name, None)) or size for name, size in (("image_size", 32), ("patch_size", 8))
    )
    times = getattr(vision, "temporal_patch_size", None) or getattr(vision, "patch_temporal", None) or 1
    pixels = 3 * patch * patch * times
    more = {
        "image_sizes": torch.tensor([[side, side]]),
        "image_merge_sizes": torch.tensor([1]),
        "spatial_shapes": torch.tensor([[4, 4]]),
        "target_sizes": torch.tensor([[4, 4]]),
        "high_res_pixel_values": torch.randn(1, 3, side, side),
        "image_position_ids": torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij"), -1).reshape(
            1, 16, 2
        ),
    }
    more = {name: value for name, value in more.items() if name in accepted}
    grids = [name for name in accepted if "grid" in name and "video" not in name]
    flat = [torch.randn(16, pixels), torch.randn(1, 16, pixels), torch.randn(16, 3, patch, patch)]
    for grid in ([[1, 4, 4]], [[4, 4]]) if grids else ():
        for patches in flat:
            yield {"pixel_values": patches, grids[0]: torch.tensor(grid), **more}
    for shape in ((1, 3, side, side), (1, 1, 3, side, side), (2, 3, side, side), (1, 2, 3, side, side)):
        mask = (
            {"pixel_attention_mask": torch.ones(*shape[:-3], side, side, dtype=torch.bool)}
            if "pixel_attention_mask" in accepted
            else {}
        )
        yield {"pixel_values": torch.randn(*shape), **mask, **more}
    for patches in (*flat[1:2], torch.randn(1, 3, patch, 16 * patch)):
        mask = (
            {"pixel_attention_mask": torch.ones(1, 16, dtype=torch.long)} if "pixel_attention_mask" in accepted else {}
        )
        yield {"pixel_values": patches, **mask, **more}


def _first(size: Any) -> Any:
    return size[0] if isinstance(size, list | tuple) else size
