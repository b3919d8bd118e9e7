"""Settings of a model in a sweep: each is in the key where it is set, and does to dialogues and images what the papers' code does."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from lmmcl.config.cluster import Cluster
from lmmcl.config.sweep import Sweep, build_sweep
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.methods import get_recipe
from lmmcl.models import ModelSettings, get_model
from lmmcl.models.inputs.many_tiles import pinpoints, processor_class
from lmmcl.models.inputs.shown_images import padded, shown_images, within
from lmmcl.models.processing.encode import encode
from lmmcl.models.processing.processors import apply_settings
from lmmcl.planning.activations import example_tokens
from lmmcl.planning.plan import make_plan
from lmmcl.runner.run import run_sweep
from lmmcl.search.run_context import RunContext
from lmmcl.steps import Pretrained
from lmmcl.steps.count_trained import count_trained
from lmmcl.tasks.examples import Example, Message, ask
from lmmcl.weights.checkpoint import export

ASSISTANT = "You are a helpful assistant."
"""LMM-CL, llava/train/train.py line 629 (0affbdc): the system turn of LLaVA-OneVision."""
LIMIT = 262_144
"""arXiv 2603.14493, config_generation/single-task/yaml_templates.py: image_max_pixels in training and evaluation."""
EACH = [
    {"system": ASSISTANT},
    {"max_pixels": LIMIT},
    {"square": True},
    {"tiles": "anyres_max_9"},
    {"image_newline": "llm"},
]


def picture(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(width * height).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def question(width: int = 40, height: int = 30) -> Example:
    return ask("row", "what colour is it ?", "red", picture(width, height))


@pytest.mark.parametrize("settings", EACH, ids=lambda each: next(iter(each)))
def test_a_setting_is_in_the_identity_where_it_is_set_and_the_model_is_found_again(settings: dict) -> None:
    for name in ("tiny-next", "llava-next-llama3-8b"):
        plain, model = get_model(name), get_model(name).with_settings(ModelSettings(**settings))
        assert model.identity() == {**plain.identity(), "settings": settings}
        assert plain.with_settings(ModelSettings()).identity() == plain.identity()
        assert Pretrained(model).key != Pretrained(plain).key
        again = get_model(model.reference)
        assert again == model and again.identity() == model.identity()
        assert (model.name, model.label) == (plain.name, plain.label)


def test_a_local_directory_takes_settings_too(tmp_path: Path) -> None:
    model = get_model("tiny-onevision")
    model.load_model().save_pretrained(tmp_path / "mine")
    model.save_processor(tmp_path / "mine")
    plain = get_model("./mine", tmp_path)
    local = plain.with_settings(ModelSettings(square=True, image_newline="llm"))
    assert get_model(local.reference).identity() == local.identity() != plain.identity()
    assert local.roles_of(["model.image_newline"]) == {"model.image_newline": "llm.image_newline"}


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({"tiny-qwen": {"tiles": "anyres_max_9"}}, r"models\.tiny-qwen.*only LLaVA-NeXT"),
        ({"tiny-qwen": {"image_newline": "llm"}}, r"models\.tiny-qwen.*only LLaVA-NeXT and LLaVA-OneVision"),
        ({"tiny-qwen": {"max_pixel": 5000}}, r"models\.tiny-qwen.*max_pixel.*did you mean 'max_pixels'"),
        ({"tiny-qwen": {"max_pixels": True}}, r"models\.tiny-qwen"),
        ({"tiny-qwin": {"square": True}}, r"models\.tiny-qwin.*unknown model 'tiny-qwin'; did you mean 'tiny-qwen'"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused_with_its_place(models: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        sweep_of("tiny-qwen", models)


def sweep_of(model: str, models: dict) -> Sweep:
    return build_sweep(
        {
            "name": "asked",
            "orders": {"main": ["birds"]},
            "benchmarks": {"held_out": ["colour"]},
            "models": models,
            "training": {
                "max_steps": 2,
                "examples": 8,
                "global_batch_size": 4,
                "precision": "fp32",
                "learning_rate": 1e-3,
            },
            "evaluation": {"limit": 4, "precision": "fp32"},
            "grids": [{"model": [model], "recipe": ["llm"]}],
        }
    )


def test_a_system_turn_stands_before_dialogues_that_have_none() -> None:
    plain = get_model("tiny-onevision").load_processor()
    processor = get_model("tiny-onevision").with_settings(ModelSettings(system="you are kind")).load_processor()
    written = processor.tokenizer.decode(encode(processor, question(), with_answer=True)["input_ids"])
    assert written.startswith("<system> you are kind <end> <user>")
    assert written.endswith(plain.tokenizer.decode(encode(plain, question(), with_answer=True)["input_ids"]))
    own = Example("own", (Message("system", "be brief"), Message("user", "why ?"), Message("assistant", "so")))
    for with_answer in (True, False):
        read = [encode(each, own, with_answer=with_answer)["input_ids"].tolist() for each in (plain, processor)]
        assert read[0] == read[1]
    taught = encode(processor, question(), with_answer=True)
    asked = encode(processor, question(), with_answer=False)["input_ids"]
    assert taught["input_ids"][: len(asked)].tolist() == asked.tolist()


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages if m['role'] != 'system' %}<{{ m['role'] }}>{% endfor %}",
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}<user>",
    ],
)
def test_a_template_without_system_turns_is_refused(template: str) -> None:
    processor = get_model("tiny-onevision").load_processor()
    processor.chat_template = template
    with pytest.raises(UserError, match="writes no system turn"):
        apply_settings(processor, ModelSettings(system=ASSISTANT), "model mine")


@pytest.mark.parametrize("size", [(1024, 768), (512, 512), (513, 512), (3000, 100), (40, 30)])
def test_images_are_scaled_to_the_pixel_limit_as_llama_factory_does(size: tuple[int, int]) -> None:
    """LLaMA-Factory: scale = sqrt(limit / (w·h)), and both sides are rounded down."""
    width, height = size
    shown = within(picture(width, height), LIMIT)
    assert shown.width * shown.height <= LIMIT
    scale = min(1.0, (LIMIT / (width * height)) ** 0.5)
    assert shown.size == (int(width * scale), int(height * scale))


def test_the_pixel_limit_reaches_training_evaluation_and_the_estimate() -> None:
    limited = get_model("tiny-qwen").with_settings(ModelSettings(max_pixels=1024))
    large = question(64, 64)
    for with_answer in (True, False):
        tokens = [
            len(encode(each.load_processor(), large, with_answer=with_answer)["input_ids"])
            for each in (limited, get_model("tiny-qwen"))
        ]
        assert tokens[0] < tokens[1]
    real = get_model("qwen2.5-vl-3b")
    assert example_tokens(real.with_settings(ModelSettings(max_pixels=LIMIT))) < example_tokens(real) / 2


def test_images_are_padded_to_a_square_as_llava_does() -> None:
    """LLaVA, llava/mm_utils.py: expand2square with int(255 · mean) of the image processor."""
    wide = padded(picture(21, 10), (122, 116, 104))
    assert wide.size == (21, 21)
    rows = np.asarray(wide)
    assert np.array_equal(rows[5:15], np.asarray(picture(21, 10)))
    assert (rows[:5] == (122, 116, 104)).all() and (rows[15:] == (122, 116, 104)).all()
    processor = get_model("tiny-next").with_settings(ModelSettings(square=True)).load_processor()
    (shown,) = shown_images(processor, question(20, 40))
    assert shown.size == (40, 40)
    assert shown.getpixel((0, 0)) == tuple(int(255 * mean) for mean in processor.image_processor.image_mean)


@pytest.mark.parametrize("size", [(32, 32), (33, 32), (200, 190), (300, 30), (30, 300), (500, 400), (97, 33)])
def test_tokens_are_as_many_as_features_with_36_grids(size: tuple[int, int]) -> None:
    """LMM-CL trains LLaVA-NeXT with image_grid_pinpoints (1x1),...,(6x6) and anyres_max_9."""
    lmm = get_model("tiny-next").with_settings(ModelSettings(tiles="anyres_max_9"))
    model, processor = lmm.load_model(), lmm.load_processor()
    assert len(model.config.image_grid_pinpoints) == len(processor.image_processor.image_grid_pinpoints) == 36
    encoded = encode(processor, question(*size), with_answer=True)
    tokens = int((encoded["input_ids"] == processor.image_token_id).sum())
    with torch.inference_mode():
        features = model.get_image_features(encoded["pixel_values"], encoded["image_sizes"]).pooler_output
        model(
            **{
                name: value[None] if name in ("input_ids", "attention_mask") else value
                for name, value in encoded.items()
                if name != "labels"
            }
        )
    assert sum(len(each) for each in features) == tokens
    base = 16
    assert tokens <= base + 1.21 * 9 * base + 6 * 4, "of more than nine tiles' worth, nine tiles' worth remain"


def test_the_estimate_of_a_photograph_is_what_the_processor_makes_of_it() -> None:
    processor = processor_class().__new__(processor_class())
    processor.image_processor = SimpleNamespace(image_grid_pinpoints=pinpoints(336))
    processor.patch_size, processor.num_additional_image_tokens, processor.vision_aspect_ratio = 14, 1, "anyres_max_9"
    lmm = get_model("llava-next-llama3-8b").with_settings(ModelSettings(tiles="anyres_max_9"))
    assert processor._get_number_of_features(768, 1024, 336, 336) - 1 == lmm.architecture.tokens == 5784
    assert lmm.architecture.patches == 13 * 577, "3 × 4 tiles and the whole picture"


def test_more_tiles_are_seen_than_the_checkpoint_came_with_and_others_keep_theirs() -> None:
    many = get_model("tiny-next").with_settings(ModelSettings(tiles="anyres_max_9"))
    tiles = {
        name: encode(lmm.load_processor(), question(160, 96), with_answer=False)["pixel_values"].shape[1]
        for name, lmm in (("many", many), ("few", get_model("tiny-next")))
    }
    assert tiles == {"many": 1 + 15, "few": 1 + 2}
    assert pinpoints(336)[-1] == [2016, 2016]
    again = pickle.loads(pickle.dumps(many.load_processor()))
    assert (
        encode(again, question(160, 96), with_answer=False)["input_ids"].shape
        == encode(many.load_processor(), question(160, 96), with_answer=False)["input_ids"].shape
    )


def test_the_newline_vector_trains_with_the_language_model_where_that_is_set() -> None:
    """LMM-CL, llava/train/train.py: `mm_language_model` trains all that is neither tower nor projector."""
    for name in ("tiny-onevision", "tiny-next", "llava-onevision-7b"):
        plain, moved = get_model(name), get_model(name).with_settings(ModelSettings(image_newline="llm"))
        size = moved.role_counts()["llm.image_newline"]
        trained = {
            recipe: count_trained(get_recipe(recipe), moved).trained - count_trained(get_recipe(recipe), plain).trained
            for recipe in ("llm", "vision", "full", "sa_proj", "projector")
        }
        assert trained == {"llm": size, "vision": -size, "full": 0, "sa_proj": 0, "projector": 0}
    lmm = get_model("tiny-next").with_settings(ModelSettings(image_newline="llm"))
    roles = lmm.roles_of(name for name, _ in lmm.load_model().named_parameters())
    assert [name for name, role in roles.items() if role == "llm.image_newline"] == ["model.image_newline"]


def test_a_sweep_trains_with_its_settings_and_its_checkpoints_are_found_with_them(tmp_path: Path) -> None:
    asked = {"tiles": "anyres_max_9", "image_newline": "llm", "system": "you are kind"}
    sweep, ledger = sweep_of("tiny-next", {"tiny-next": asked}), Ledger(str(tmp_path / "store"))
    notes = make_plan(sweep, ledger).notes
    assert "model tiny-next: system you are kind · tiles anyres_max_9 · image_newline llm" in notes
    outcome = run_sweep(RunContext.resolve(sweep, ledger), Cluster(), console=Console(quiet=True), inline=True)
    assert outcome.failures == {}
    tuned = sweep.trials[0].stages[1].checkpoint
    found = ledger.checkpoint(tuned.key)
    assert found.model.settings.identity() == asked
    export(found, ledger, tmp_path / "plain")
    assert json.loads((tmp_path / "plain/lmmcl.json").read_text())["model_settings"] == asked
    config = json.loads((tmp_path / "plain/config.json").read_text())
    assert config["image_grid_pinpoints"] == [[32, 32], [32, 64], [64, 32]]
    assert "ManyTiles" not in "".join(path.read_text() for path in (tmp_path / "plain").glob("*.json"))
