"""A family with other parts than its file knows: its roles follow from the modules that are there."""

from __future__ import annotations

from typing import Any

import pytest
from models.small_families import FAMILIES, tower

from lmmcl.models.families.generic import generic_roles
from lmmcl.models.inventory import count_roles, meta_model, parameter_counts, piece_counts
from lmmcl.models.partition.fused import Piece, fused_layouts
from lmmcl.models.roles import summary

SIZES = {"vocab_size": 120, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 12, "max_position_embeddings": 256, "pad_token_id": 0}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
OPT = {"model_type": "opt", "vocab_size": 120, "hidden_size": 48, "ffn_dim": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
       "word_embed_proj_dim": 48, "max_position_embeddings": 256}  # fmt: skip
T5 = {"model_type": "t5", "vocab_size": 120, "d_model": 48, "d_kv": 12, "d_ff": 96, "num_layers": 2, "num_decoder_layers": 2,
      "num_heads": 4, "feed_forward_proj": "gated-gelu"}  # fmt: skip
ATTENTION = {f"llm.blocks.*.attention.{part}" for part in "qkvo"}


def found(family: str, **parts: dict[str, Any]) -> tuple[Any, dict[str, str]]:
    model = meta_model({**FAMILIES[family]()[0], **parts})
    return model, dict(generic_roles(model, place=family))


@pytest.mark.parametrize(
    ("family", "parts", "expected"),
    [
        ("llava", {"vision_config": tower("pixtral", head_dim=16)}, ATTENTION | {"vision.blocks.*.mlp", "projector"}),
        ("llava", {"text_config": {"model_type": "phi3", **SIZES}}, {"llm.blocks.*.attention.q+k+v", "llm.blocks.*.mlp.gate+up"}),
        ("internvl", {"text_config": {"model_type": "qwen3_moe", **SIZES, **EXPERTS}},
         ATTENTION | {"llm.blocks.*.mlp.gate+up.routed", "llm.blocks.*.mlp.down.routed", "llm.blocks.*.router"}),
        ("internvl", {"text_config": {"model_type": "gpt_oss", **SIZES, **EXPERTS}},
         ATTENTION | {"llm.blocks.*.mlp.gate+up.routed", "llm.blocks.*.router"}),
        ("instructblip", {"text_config": OPT}, ATTENTION | {"llm.blocks.*.mlp.up", "llm.blocks.*.mlp.down", "qformer"}),
        ("instructblip", {"text_config": T5},
         ATTENTION | {f"llm.blocks.*.cross_attention.{part}" for part in "qkvo"} | {"llm.blocks.*.mlp.gate", "qformer"}),
    ],
)  # fmt: skip
def test_other_parts_have_their_roles(family: str, parts: dict[str, Any], expected: set[str]) -> None:
    model, roles = found(family, **parts)
    assert set(roles) == {name for name, _ in model.named_parameters()}
    assert expected <= set(summary(roles.values()))
    sizes = parameter_counts(model)
    counts = count_roles(roles, sizes, piece_counts(model, roles))
    left = sum(n for role, n in counts.items() if role.startswith("llm.") and role.endswith("other"))
    assert left < 0.01 * sum(counts.values())


def test_gates_of_gpt_oss_alternate_with_ups() -> None:
    model, roles = found("internvl", text_config={"model_type": "gpt_oss", **SIZES, **EXPERTS})
    layouts = fused_layouts(model, roles)
    gate = "llm.blocks.0.mlp.gate.routed"
    weight = next(layout for name, layout in layouts.items() if name.endswith("layers.0.mlp.experts.gate_up_proj"))
    bias = next(layout for name, layout in layouts.items() if name.endswith("layers.0.mlp.experts.gate_up_proj_bias"))
    assert weight[gate] == Piece(2, 2, 0, 1) and bias[gate] == Piece(1, 2, 0, 1)


def test_an_encoder_comes_before_its_decoder() -> None:
    _, roles = found("instructblip", text_config=T5)
    blocks = {
        name.split(".block.")[0]: int(role.split(".")[2]) for name, role in roles.items() if ".SelfAttention.q" in name
    }
    assert blocks == {"language_model.encoder": 1, "language_model.decoder": 3}
