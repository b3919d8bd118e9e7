"""Batches of images: joined, filled up, or refused; and which attention a class gets."""

from types import SimpleNamespace

import pytest
import torch

from lmmcl.errors import UserError
from lmmcl.models.model_class import attention_for
from lmmcl.models.processing.padding import pad

PROCESSOR = SimpleNamespace(tokenizer=SimpleNamespace(pad_token_id=0))


def row(tokens: int, **more: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"input_ids": torch.arange(1, tokens + 1), "attention_mask": torch.ones(tokens, dtype=torch.long), **more}


def test_images_of_unlike_size_are_filled_up_where_the_model_is_told_their_sizes() -> None:
    rows = [row(2, pixel_values=torch.ones(1, 3, side, 4), image_sizes=torch.tensor([[side, 4]])) for side in (2, 4)]
    batch = pad(PROCESSOR, rows)
    assert batch["pixel_values"].shape == (2, 3, 4, 4)
    assert batch["pixel_values"][0, :, 2:].sum() == 0
    assert batch["image_sizes"].tolist() == [[2, 4], [4, 4]]


def test_images_of_unlike_size_are_refused_where_nothing_tells_their_sizes() -> None:
    with pytest.raises(UserError, match="images of unlike size cannot be in one batch"):
        pad(PROCESSOR, [row(2, pixel_values=torch.ones(1, 3, side, 4)) for side in (2, 4)])


def test_a_row_without_images_is_empty_where_images_begin_with_the_rows() -> None:
    seen = row(
        3,
        pixel_values=torch.ones(1, 2, 4, 3, 8, 8),
        aspect_ratio_ids=torch.ones(1, 2, dtype=torch.long),
        cross_attention_mask=torch.ones(3, 2, 4),
    )
    batch = pad(PROCESSOR, [row(5), seen])
    assert batch["pixel_values"].shape == (2, 2, 4, 3, 8, 8)
    assert batch["pixel_values"][0].sum() == 0
    assert batch["cross_attention_mask"].shape == (2, 5, 2, 4)
    assert batch["cross_attention_mask"][0].sum() == 0
    assert batch["cross_attention_mask"][1, :2].sum() == 0


def test_a_class_without_sdpa_gets_eager_attention_and_flash_is_refused() -> None:
    kind = SimpleNamespace(__name__="Model", _supports_sdpa=False, _supports_flash_attn=False)
    assert attention_for(kind, "sdpa", "model m") == "eager"
    with pytest.raises(UserError, match="Model has no flash_attention_2; set attention: eager"):
        attention_for(kind, "flash_attention_2", "model m")
