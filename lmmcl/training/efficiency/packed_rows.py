"""Packing: the rows of a micro-batch end to end in one, without padding, each with positions and attention of its own.

transformers keeps rows apart where their positions begin again and there is no mask. Whether a model does so is tried, on the first
rows of a stage (`check_packing`): what another row holds must not move a row's logits, and they must be those that it has alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lmmcl.errors import UserError
from lmmcl.models.processing.padding import IGNORED, PER_TOKEN, is_text, pad
from lmmcl.models.self_check import LEAK_TOLERANCE, PADDING_TOLERANCE

LENGTHS = "packed_lengths"
"""Key of a packed batch's lengths: a tensor (rows,)."""
_OWN_IMAGES = ("cross_attention_mask", "image_embeds_position_mask", "aspect_ratio_ids")
"""Inputs that say of a row's tokens which images of that row they see: in one row they would have to be renumbered."""


def pack(processor: Any, encoded: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """One batch (1, all tokens) of several rows, image tensors joined as in a padded one.

    Raises UserError for inputs that say more of a row than of its tokens and images.
    """
    names = list(dict.fromkeys(name for one in encoded for name in one))
    if wrong := [name for name in names if name in _OWN_IMAGES or name.startswith("qformer_")]:
        raise UserError(
            f"rows with the input {wrong[0]} cannot be packed; set packing: false", place="training.packing"
        )
    lengths = [len(one["input_ids"]) for one in encoded]
    batch: dict[str, Tensor] = {}
    for name in (name for name in names if PER_TOKEN.fullmatch(name) and name != "attention_mask"):
        like = next(one[name] for one in encoded if name in one)
        parts = [
            one[name] if name in one else like.new_zeros(length, *like.shape[1:])
            for one, length in zip(encoded, lengths, strict=True)
        ]
        batch[name] = torch.cat(parts)[None]
    if "labels" in batch:
        starts = torch.tensor(lengths).cumsum(0) - torch.tensor(lengths)
        batch["labels"][:, starts] = IGNORED  # the row before does not predict it
    images = [{name: value for name, value in one.items() if not is_text(name)} for one in encoded]
    return batch | pad(processor, images) | {LENGTHS: torch.tensor(lengths)}


def packed_positions(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Position ids of a packed batch: (1, tokens), counted from 0 in every row; for models with positions in several dimensions
    those before the model's own (1 + dimensions, 1, tokens), as transformers wants them."""
    lengths, device = batch[LENGTHS].tolist(), batch["input_ids"].device
    counted = torch.cat([torch.arange(length, device=device) for length in lengths])[None]
    several = next((module for module in model.modules() if hasattr(type(module), "get_rope_index")), None)
    if several is None:
        return counted
    takes: Any = inspect.signature(several.get_rope_index).parameters  # type: ignore[arg-type]
    inputs = {name: value for name, value in batch.items() if name in takes}
    if not any(name.startswith(("image_grid", "video_grid")) for name in inputs):
        return counted[None].expand(4, -1, -1)
    own: Tensor = several.get_rope_index(**inputs)[0]  # type: ignore[operator]
    # As one text, each row continues where the one before ended, by the same number in every dimension.
    starts = torch.tensor([0, *lengths[:-1]], device=device).cumsum(0)
    first = torch.repeat_interleave(own[:, :, starts], batch[LENGTHS].to(device), dim=2)
    return torch.cat([counted[None], own - first])


def check_packing(
    model: Any, processor: Any, rows: Sequence[Mapping[str, Tensor]], forward: Any, *, half: bool
) -> str | None:
    """Why a model cannot be taught packed rows, in words; None if it can. `forward` gives the logits of a batch without labels."""
    rows = [row for row in rows if "labels" in row]
    first, second = rows[0], rows[-1]
    changed = {**first, "input_ids": _other_answer(first, processor)}
    try:
        packed, moved = (_logits(forward, pack(processor, [one, second])) for one in (first, changed))
    except torch.OutOfMemoryError:
        raise
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        return f"{type(model).__name__} does not run on packed rows: {type(error).__name__}: {error}"
    alone = _logits(forward, pad(processor, [dict(second)]))
    own = slice(len(first["input_ids"]), None)
    if _apart(packed[own], moved[own]) > LEAK_TOLERANCE:
        return f"{type(model).__name__} does not keep packed rows apart: a row's logits depend on the row before"
    distance, bound = _apart(alone, packed[own]), PADDING_TOLERANCE["half" if half else "float32"]
    if distance > bound:
        return f"{type(model).__name__} gives packed rows other logits (by {distance:.2g} of their spread; allowed {bound:g})"
    return None


def _logits(forward: Any, batch: dict[str, Tensor]) -> Tensor:
    return forward({name: value for name, value in batch.items() if name != "labels"})[0].float()


def _other_answer(row: Mapping[str, Tensor], processor: Any) -> Tensor:
    """The row's tokens with others, no special ones, in the place of its answer."""
    ids, taught = row["input_ids"].clone(), row["labels"] != IGNORED
    special = set(processor.tokenizer.all_special_ids)
    usual = next(token for token in range(len(special) + 1) if token not in special)
    ids[taught] = torch.where(ids[taught] == usual, usual + 1, usual)
    return ids


def _apart(one: Tensor, other: Tensor) -> float:
    """The norm of a difference as a share of the norm of the spread; infinite for what is not a number."""
    spread, far = float((one - one.mean(dim=-1, keepdim=True)).norm()), float((one - other).norm())
    return far / spread if spread > 0 and far == far else (0.0 if far == 0 else float("inf"))
