"""The role rules of the three families: a partition of the parameters, as recipes expect it."""

import pytest

from lmmcl.models.roles import assign_roles, select, summary

LANGUAGE = {
    "llm.embeddings",
    *(f"llm.blocks.*.attention.{part}" for part in "qkvo"),
    *(f"llm.blocks.*.mlp.{part}" for part in ("gate", "up", "down")),
    "llm.blocks.*.norm",
    "llm.norm",
}
VISION = {"vision.embeddings", "vision.blocks.*.attention", "vision.blocks.*.mlp", "vision.blocks.*.norm", "projector"}


def test_every_parameter_has_exactly_one_role(tiny):
    lmm, model, _ = tiny
    names = [name for name, _ in model.named_parameters()]
    roles = lmm.roles_of(names)
    assert set(roles) == set(names)
    assert set(summary(roles.values())) >= LANGUAGE | VISION


def test_vision_blocks_never_count_as_blocks_of_the_language_model(tiny):
    lmm, model, _ = tiny
    roles = lmm.roles_of(name for name, _ in model.named_parameters())
    chosen = select(roles, ["llm.blocks.*.mlp.gate", "llm.blocks.*.attention"], model=lmm.name)
    layers = model.config.text_config.num_hidden_layers
    assert all(name.startswith("model.language_model.layers.") for name in chosen)
    assert sum(name.endswith("gate_proj.weight") for name in chosen) == layers
    assert {name.split(".")[-2] for name in chosen} == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj"}


def test_the_three_coarse_roles_make_up_the_whole_model(tiny):
    lmm, model, _ = tiny
    names = {name for name, _ in model.named_parameters()}
    roles = lmm.roles_of(names)
    assert select(roles, ["vision", "projector", "llm"], model=lmm.name) == names


@pytest.mark.parametrize(
    ("family", "config_class", "billions"),
    [
        ("llava_onevision", "LlavaOnevisionConfig", {"projector": 0.017, "llm": 7.62, "sa": 0.82, "gate_up": 3.80}),
        ("qwen2_5_vl", "Qwen2_5_VLConfig", {"llm": 7.62, "sa": 0.82, "gate_up": 3.80}),
    ],
)
def test_roles_of_a_seven_billion_checkpoint_have_the_papers_sizes(family, config_class, billions):
    """Built without memory (meta device); sizes as in LMM-CL's table of recipes."""
    import importlib

    import torch
    import transformers

    values = {"qwen2_5_vl": SEVEN_QWEN, "llava_onevision": SEVEN_ONEVISION}[family]
    config = getattr(transformers, config_class)(**values)
    with torch.device("meta"):
        model = transformers.AutoModelForImageTextToText.from_config(config)
    rules = importlib.import_module(f"lmmcl.models.families.{family}").RULES
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    roles = assign_roles(rules, sizes)
    selectors = {
        "projector": ["projector"],
        "llm": ["llm"],
        "sa": ["llm.blocks.*.attention"],
        "gate_up": ["llm.blocks.*.mlp.gate", "llm.blocks.*.mlp.up"],
    }
    for name, expected in billions.items():
        total = sum(sizes[each] for each in select(roles, selectors[name], model=family))
        assert total / 1e9 == pytest.approx(expected, rel=0.02), name


SEVEN_LANGUAGE = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
}
SEVEN_ONEVISION = {
    "text_config": {"model_type": "qwen2", **SEVEN_LANGUAGE},
    "vision_config": {
        "model_type": "siglip_vision_model",
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 26,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
        "vision_use_head": False,
    },
    "tie_word_embeddings": False,
}
SEVEN_QWEN = {
    "text_config": {
        "model_type": "qwen2_5_vl_text",
        "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6},
        **SEVEN_LANGUAGE,
    },
    "vision_config": {"out_hidden_size": 3584},
    "tie_word_embeddings": False,
}
