"""Weight decay is for matrices of layers: in every family norms, biases, scales and single vectors are spared."""

from __future__ import annotations

import pytest
from models.shrunk import shrunk
from models.small_families import FAMILIES

from lmmcl.models.inventory import meta_model
from lmmcl.models.partition.modules import decayed_names


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_decayed_is_a_matrix_of_a_layer(family: str) -> None:
    model = meta_model(FAMILIES[family]()[0])
    decayed = set(decayed_names(model))
    for name, parameter in model.named_parameters():
        owner = type(model.get_submodule(name.rpartition(".")[0])).__name__
        spared = parameter.ndim == 1 or "Norm" in owner or "cls_token" in name or "class_embedding" in name
        assert (name in decayed) != spared, (name, owner)


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("qwen2_5_vl", ["visual.blocks.0.norm1.weight", "visual.merger.ln_q.weight"]),
        ("internvl", ["encoder.layer.0.lambda_1", "embeddings.cls_token", "layernorm_before.weight"]),
        ("llava_next", ["embeddings.class_embedding", "model.image_newline", "pre_layrnorm.weight"]),
        ("gemma3", ["multi_modal_projector.mm_soft_emb_norm.weight", "self_attn.q_norm.weight"]),
    ],
)
def test_what_the_trainer_alone_would_decay_is_spared(family: str, names: list[str]) -> None:
    model = meta_model(FAMILIES[family]()[0])
    decayed = decayed_names(model)
    for name in names:
        assert any(parameter.endswith(name) for parameter, _ in model.named_parameters()), name
        assert not any(parameter.endswith(name) for parameter in decayed), name


def test_experts_are_decayed_and_the_vectors_of_a_linear_mixer_are_not() -> None:
    model = meta_model(shrunk("qwen3_5_moe"))
    decayed = {name.rpartition(".")[2] for name in decayed_names(model)}
    assert {"gate_up_proj", "down_proj"} <= decayed
    assert not {"A_log", "dt_bias", "bias"} & decayed
