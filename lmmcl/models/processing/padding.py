"""Batches: tokens padded on the left, image tensors joined as the processor itself joins them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lmmcl.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100
"""The label of a token that is not taught (what torch's cross entropy ignores)."""

PER_TOKEN = re.compile(
    r"input_ids|attention_mask|labels|\w*token_type_ids|cross_attention_mask|image_embeds_position_mask"
)
"""Inputs with a value (or a row of values) for each token."""
_SIZES = re.compile(
    r"image_sizes|image_grid_\w+|\w*(?:pixel|tile|ratio)\w*_mask|target_sizes|spatial_shapes|num_\w+|image_num_crops"
)
"""Inputs that tell a model how much of a padded image tensor is image."""
_BY_ROW = ("aspect_ratio_ids", "aspect_ratio_mask")
"""Inputs of models whose image tensors begin with the rows of the batch, not with its images: a row without images is empty."""


def is_text(name: str) -> bool:
    """Whether an input belongs to the tokens of a row, so that it has a row's dimension of its own in a batch."""
    return bool(PER_TOKEN.fullmatch(name)) or name.startswith("qformer_")


def pad(processor: Any, encoded: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """A batch for `model(**batch)` or `model.generate(**batch)`: tokens padded on the left, images concatenated.

    What a Q-Former reads is padded on the right, as the encoder that it is. Images of unlike size are filled up with zeros
    where the model gets their sizes, and refused where it does not.

    Shapes: tokens (batch, longest); image tensors (all images or patches of the batch, …). Raises ValueError for an
    empty list.
    """
    if not encoded:
        raise ValueError("nothing to pad")
    names = dict.fromkeys(name for one in encoded for name in one)
    by_row = [name for name in names if not PER_TOKEN.fullmatch(name)] if any(name in names for name in _BY_ROW) else []
    filled = [_with_empty_images(one, encoded, by_row) for one in encoded] if by_row else encoded
    return {name: _joined(processor, name, [one[name] for one in filled if name in one], names) for name in names}


def _joined(processor: Any, name: str, parts: list[Tensor], names: Sequence[str] | dict[str, None]) -> Tensor:
    import torch
    from torch.nn.utils.rnn import pad_sequence

    if name.startswith("qformer_"):
        fill = processor.qformer_tokenizer.pad_token_id if name == "qformer_input_ids" else 0
        return pad_sequence(parts, batch_first=True, padding_value=fill)
    if PER_TOKEN.fullmatch(name):
        fill = {"input_ids": processor.tokenizer.pad_token_id, "labels": IGNORED}.get(name, 0)
        return pad_sequence(_equal(parts, first=1), batch_first=True, padding_value=fill, padding_side="left")
    if name.startswith("pixel_values") and _is_one_strip(parts, names):
        return torch.cat(parts, dim=-1)
    shapes = {part.shape[1:] for part in parts}
    if len(shapes) > 1 and not any(_SIZES.fullmatch(other) for other in names):
        raise UserError(
            f"images of unlike size cannot be in one batch of this model: {name} has the shapes "
            f"{', '.join(str(tuple(shape)) for shape in sorted(shapes))}, and the model has no input for their sizes"
        )
    return torch.cat(_equal(parts, first=1))


def _is_one_strip(parts: list[Tensor], names: Sequence[str] | dict[str, None]) -> bool:
    """Whether all patches of all images stand side by side in one strip (1, channels, height of a patch, patches × width)."""
    return "target_sizes" in names and all(part.dim() == 4 and len(part) == 1 for part in parts)


def _equal(parts: list[Tensor], first: int) -> list[Tensor]:
    """The tensors filled up with zeros, at the end of every dimension from `first` on, to the largest."""
    from torch.nn.functional import pad as fill

    if len({part.shape[first:] for part in parts}) == 1:
        return parts
    most = [max(sizes) for sizes in zip(*(part.shape[first:] for part in parts), strict=True)]
    ends = [[want - have for want, have in zip(most, part.shape[first:], strict=True)] for part in parts]
    return [
        fill(part, [size for end in reversed(missing) for size in (0, end)]) if any(missing) else part
        for part, missing in zip(parts, ends, strict=True)
    ]


def _with_empty_images(
    one: dict[str, Tensor], encoded: Sequence[dict[str, Tensor]], names: Sequence[str]
) -> dict[str, Tensor]:
    """The row with an empty image for what it lacks of `names`, and no attention to it."""
    import torch

    empty = {}
    for name in names:
        like = next(other[name] for other in encoded if name in other)
        empty[name] = one.get(name, torch.zeros_like(like[:1]))
    if any("cross_attention_mask" in other for other in encoded) and "cross_attention_mask" not in one:
        like = next(other["cross_attention_mask"] for other in encoded if "cross_attention_mask" in other)
        empty["cross_attention_mask"] = like.new_zeros(len(one["input_ids"]), *like.shape[1:])
    return {**one, **empty}
