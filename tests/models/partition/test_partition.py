"""Roles from modules and configuration: as the family files say where there is one, a partition everywhere, fused parts apart."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from models.shrunk import shrunk
from models.small_families import FAMILIES

from lmmcl.errors import UserError
from lmmcl.models import get_model
from lmmcl.models.architecture import get_architecture
from lmmcl.models.families.generic import generic_roles
from lmmcl.models.hub import HubModel
from lmmcl.models.inventory import count_roles, meta_model, parameter_counts, piece_counts, shipped
from lmmcl.models.partition.fused import Piece, fused_layouts
from lmmcl.models.partition.regions import partition
from lmmcl.models.roles import assign_roles, select, split_role, summary
from lmmcl.models.tiny.tiny import TinyLMM
from lmmcl.models.tiny.tiny_config import configuration


def test_modules_say_the_same_as_every_family_file() -> None:
    for family, made in FAMILIES.items():
        architecture = get_architecture(family)
        assert architecture is not None
        model = meta_model(made()[0])
        names = [name for name, _ in model.named_parameters()]
        assert partition(model) == assign_roles(architecture.rules, names), family


def test_modules_say_the_same_as_the_tiny_models() -> None:
    for name in ("tiny-onevision", "tiny-next", "tiny-qwen"):
        lmm = get_model(name)
        assert isinstance(lmm, TinyLMM)
        model = meta_model(configuration(lmm.style))
        assert partition(model) == lmm.roles_of(parameter for parameter, _ in model.named_parameters()), name


def small(model_type: str) -> Any:
    return meta_model(shrunk(model_type))


def roles(model_type: str) -> set[str]:
    return set(summary(partition(small(model_type)).values()))


def test_a_mixture_has_dense_routed_and_shared_mlps_and_a_router() -> None:
    found = roles("glm4v_moe")
    assert found >= {f"llm.blocks.*.mlp.{part}.dense" for part in ("gate", "up", "down")}
    assert found >= {"llm.blocks.*.mlp.gate+up.routed", "llm.blocks.*.mlp.down.routed", "llm.blocks.*.router"}
    assert found >= {f"llm.blocks.*.mlp.{part}.shared" for part in ("gate", "up", "down")}
    assert not any(role.endswith("other") for role in found - {"vision.other"})


def test_a_hybrid_has_softmax_and_linear_token_mixers() -> None:
    found = roles("qwen3_5")
    assert found >= {f"llm.blocks.*.attention.{part}.softmax" for part in "qkvo"}
    assert found >= {
        "llm.blocks.*.attention.q+k+v.linear",
        "llm.blocks.*.attention.o.linear",
        "llm.blocks.*.attention.gate.linear",
    }


def test_cross_attention_is_a_role_of_its_own() -> None:
    found = roles("mllama")
    assert found >= {f"llm.blocks.*.{kind}.{part}" for kind in ("attention", "cross_attention") for part in "qkvo"}


def test_a_projector_inside_the_tower_or_called_vision_is_a_projector() -> None:
    for model_type, module in (
        ("lighton_ocr", "vision_projection"),
        ("granite_docling", "connector"),
        ("muse_glimmer", "adapter"),
    ):
        found = partition(small(model_type))
        assert {role for name, role in found.items() if module in name} == {"projector"}, model_type


def test_per_layer_embeddings_are_not_the_embeddings() -> None:
    found = partition(small("gemma4"))
    assert found["model.language_model.embed_tokens_per_layer.weight"] == "llm.per_layer_embeddings"
    assert found["model.language_model.embed_tokens.weight"] == "llm.embeddings"


@pytest.mark.parametrize(
    ("model_type", "tensor", "pieces"),
    [
        ("glm4v", "layers.0.mlp.gate_up_proj.weight", {"mlp.gate": Piece(0, 192, 0, 96), "mlp.up": Piece(0, 192, 96, 96)}),
        ("qwen3_vl_moe", "layers.1.mlp.experts.gate_up_proj",
         {"mlp.gate.routed": Piece(1, 96, 0, 48), "mlp.up.routed": Piece(1, 96, 48, 48)}),
        ("llama4", "layers.1.feed_forward.experts.gate_up_proj",
         {"mlp.gate.routed": Piece(2, 192, 0, 96), "mlp.up.routed": Piece(2, 192, 96, 96)}),
        ("fuyu", "layers.0.self_attn.query_key_value.bias",
         {"attention.q": Piece(0, 48, 0, 16), "attention.k": Piece(0, 48, 16, 16), "attention.v": Piece(0, 48, 32, 16)}),
    ],
)  # fmt: skip
def test_a_fused_tensor_says_where_its_parts_lie(model_type: str, tensor: str, pieces: dict[str, Piece]) -> None:
    model = small(model_type)
    name = next(name for name, _ in model.named_parameters() if name.endswith(tensor))
    layout = fused_layouts(model, partition(model))[name]
    assert {role.split(".", 3)[3]: piece for role, piece in layout.items()} == pieces


def test_the_parts_of_fused_tensors_are_counted_apart_and_add_up() -> None:
    model = small("qwen3_5_moe")
    found, sizes = partition(model), parameter_counts(model)
    counts = count_roles(found, sizes, piece_counts(model, found))
    assert sum(counts.values()) == sum(sizes.values())
    assert not any("+" in role for role in counts)
    assert counts["llm.blocks.0.mlp.gate.routed"] == counts["llm.blocks.0.mlp.up.routed"] == 4 * 48 * 64
    assert len(select(found, ["llm.blocks.*.mlp.gate"], model="m")) == len(
        select(found, ["llm.blocks.*.mlp.up"], model="m")
    )


def test_joined_roles_come_apart() -> None:
    assert split_role("llm.blocks.3.mlp.gate+up.routed") == [
        "llm.blocks.3.mlp.gate.routed",
        "llm.blocks.3.mlp.up.routed",
    ]
    assert split_role("llm.blocks.3.attention.q+k+v") == [f"llm.blocks.3.attention.{part}" for part in "qkv"]
    assert split_role("projector") == ["projector"]


def test_a_part_that_nothing_tells_is_refused() -> None:
    from torch import nn

    model = small("llava")
    model.model.mystery = nn.Linear(4, 4)
    with pytest.raises(UserError, match=r"2 parameters belong to no part that is known \(model.mystery\)"):
        generic_roles(model, place="model x")


def test_a_family_file_needs_no_rules() -> None:
    known = get_model("llava-onevision-0.5b")
    assert isinstance(known, HubModel)
    bare = dataclasses.replace(known, architecture=dataclasses.replace(known.architecture, rules=()))
    names = [name for name, _ in meta_model(shipped(known.name)["config"]).named_parameters()]
    assert bare.roles_of(names) == known.roles_of(names)
