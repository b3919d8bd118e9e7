"""A call taken apart: each picture alone has the features that it has in its batch, to rounding, and nothing of its neighbours."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lmmcl.steps import frozen_vision
from lmmcl.weights.image_features.pictures import SPLITS, take_apart

sys.path.insert(0, str(Path(__file__).parents[2]))
from models import small_families

SIDE, PATCH = small_families.SIDE, small_families.PATCH


def inner_model(config: dict[str, Any]) -> Any:
    from transformers import AutoConfig, AutoModelForImageTextToText

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = AutoModelForImageTextToText.from_config(AutoConfig.for_model(**config), dtype=torch.float32)
        for name, parameter in model.named_parameters():
            if "newline" in name:
                torch.nn.init.normal_(parameter)
    return model.eval().model


def pixtral() -> dict[str, Any]:
    config, _ = small_families.llava()
    tower = small_families.tower("pixtral", image_size=4 * SIDE, head_dim=16)
    return {**config, "vision_config": tower, "vision_feature_layer": -1, "vision_feature_select_strategy": "full"}


def qwen2_vl() -> dict[str, Any]:
    config, _ = small_families.qwen2_5_vl()
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 48, "num_heads": 2, "mlp_ratio": 2, "patch_size": PATCH // 2}
    text = {**config["text_config"], "model_type": "qwen2_vl_text"}
    return {**config, "model_type": "qwen2_vl", "text_config": text, "vision_config": vision}


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def padded_tiles(counts: list[int]) -> torch.Tensor:
    pixels = noise(len(counts), max(counts), 3, SIDE, SIDE)
    for row, count in zip(pixels, counts, strict=True):
        row[count:] = 0
    return pixels


SIZES = torch.tensor([[SIDE, 2 * SIDE], [SIDE, SIDE], [2 * SIDE, 2 * SIDE]])
GRIDS = torch.tensor([[1, 4, 8], [1, 8, 8], [1, 2, 4]])
CALLS: dict[str, tuple[str, Any, dict[str, torch.Tensor]]] = {
    "llava": ("llava", lambda: small_families.llava()[0], {"pixel_values": noise(3, 3, SIDE, SIDE)}),
    "pixtral": (
        "llava",
        pixtral,
        {
            "pixel_values": noise(2, 3, 2 * SIDE, 2 * SIDE),
            "image_sizes": torch.tensor([[SIDE, 2 * SIDE], [2 * SIDE, 40]]),
        },
    ),
    "llava_next": (
        "llava_next",
        lambda: small_families.llava_next()[0],
        {"pixel_values": padded_tiles([3, 2, 5]), "image_sizes": SIZES},
    ),
    "llava_onevision": (
        "llava_onevision",
        lambda: small_families.llava_onevision()[0],
        {"pixel_values": padded_tiles([3, 2, 5]), "image_sizes": SIZES},
    ),
    "llava_onevision, tiles in one row": (
        "llava_onevision",
        lambda: small_families.llava_onevision()[0],
        {"pixel_values": noise(10, 3, SIDE, SIDE), "image_sizes": SIZES},
    ),
    "llava_onevision, two pictures in a dialogue": (
        "llava_onevision",
        lambda: small_families.llava_onevision()[0],
        {"pixel_values": padded_tiles([3, 1, 1]), "image_sizes": SIZES, "batch_num_images": torch.tensor([1, 2])},
    ),
    "qwen2_vl": ("qwen2_vl", qwen2_vl, {"pixel_values": noise(104, 3 * 2 * 16), "image_grid_thw": GRIDS}),
    "qwen2_5_vl": (
        "qwen2_5_vl",
        lambda: small_families.qwen2_5_vl()[0],
        {"pixel_values": noise(104, 3 * 2 * 16), "image_grid_thw": GRIDS},
    ),
}


@pytest.mark.parametrize("name", CALLS)
@torch.no_grad()
def test_a_picture_alone_has_its_features_and_nothing_of_its_batch(name: str) -> None:
    family, config, arguments = CALLS[name]
    owner = inner_model(config())
    call = {**arguments, "return_dict": True}
    pictures = take_apart(owner, family, (), call)
    assert pictures is not None
    together = owner.get_image_features(**call).pooler_output
    alone = [owner.get_image_features(**picture.arguments).pooler_output for picture in pictures]
    assert (
        len(pictures) == len(together) == len(arguments.get("image_sizes", arguments.get("image_grid_thw", range(3))))
    )
    for batched, single in zip(together, alone, strict=True):
        (features,) = single
        assert features.shape == batched.shape and torch.allclose(features, batched, atol=1e-5)
        assert bool(features.std() > 0)
    (again,) = take_apart(owner, family, (), pictures[0].arguments) or [None]
    assert again is not None and again.settings == pictures[0].settings
    as_lists = [{key: value.tolist() for key, value in one.tensors.items()} for one in (again, pictures[0])]
    assert as_lists[0] == as_lists[1], "what was a batch leaves no trace"


def test_every_family_whose_features_are_kept_can_be_taken_apart_and_no_other() -> None:
    assert set(SPLITS) == set(frozen_vision.FAMILIES)
    assert {family for family, _, _ in CALLS.values()} == set(SPLITS)


def test_what_the_configuration_says_anyhow_is_no_other_picture() -> None:
    family, config, arguments = CALLS["llava_next"]
    owner = inner_model(config())
    by_name = take_apart(owner, family, (), {**arguments, "return_dict": True})
    explicit = {"vision_feature_layer": -2, "vision_feature_select_strategy": "default", "return_dict": True}
    as_training = take_apart(owner, family, tuple(arguments.values()), explicit)
    assert by_name and as_training
    assert [picture.settings for picture in by_name] == [picture.settings for picture in as_training] == [{}] * 3
    other = take_apart(owner, family, (), {**arguments, **explicit, "vision_feature_layer": -1})
    assert other and other[0].settings == {"vision_feature_layer": -1}


@pytest.mark.parametrize(
    "more",
    [
        {"return_dict": False},
        {"return_dict": True, "output_hidden_states": True},
        {"return_dict": True, "weights": torch.zeros(1)},
        {"return_dict": True, "hook": print},
    ],
    ids=["a tuple", "hidden states", "an unknown tensor", "an unknown object"],
)
def test_a_call_that_asks_for_more_or_says_more_is_left_alone(more: dict[str, Any]) -> None:
    family, config, arguments = CALLS["llava"]
    assert take_apart(inner_model(config()), family, (), {**arguments, **more}) is None
