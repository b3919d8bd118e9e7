"""Roles inside a vision or audio tower: embeddings, blocks with attention, MLP and norms, and what is left."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from lmmcl.models.partition.modules import is_norm, number_blocks, path_to

_ATTENTION = re.compile(r".*(?:Attention|Attn).*")
_MLP = re.compile(r"(?i:.*(?:mlp|ffn|feedforward|moe))\w*")
_MLP_LINEAR = re.compile(r"fc[12]|lin[12]|linear_?fc[12]|intermediate|output")
_SCALE = re.compile(r"lambda_[12]|.*LayerScale|gate_attn|gate_ffn")
_EMBEDDINGS = re.compile(
    r"(?:.*(?:Embed(?:ding|der)?s?|PatchEmbed\w*|ConvStem|UnfoldConvolution)\w*)|"
    r"\w*embed\w*|\w*embedding\w*|cls_token|patch_conv|class_embedding"
)


def tower_roles(model: Any, names: Iterable[str], tower: str) -> dict[str, str]:
    """The role of each of `names`, all of one tower (`vision` or `audio`)."""
    names = list(names)
    numbers = number_blocks(model, names)
    return {name: f"{tower}.{_role(model, name, tower, numbers)}" for name in names}


def _role(model: Any, name: str, tower: str, numbers: dict[str, int]) -> str:
    path = path_to(model, name)
    leaf = path[-1]
    for depth, part in enumerate(path):
        if part.name in numbers:
            return f"blocks.{numbers[part.name]}.{_in_block(path[depth + 1 :], name)}"
    owner = path[-1].module
    if is_norm(owner) and len(path) and not any(_EMBEDDINGS.fullmatch(part.kind) for part in path[:-1]):
        return "norm" if not any("Head" in part.kind or "Neck" in part.kind for part in path) else "other"
    attribute = name.rpartition(".")[2]
    if tower == "audio" and re.fullmatch(r"conv(?:2d)?\d|conv_out", leaf.attribute):
        return "embeddings"
    inner = [part for part in path if part.attribute and "Model" not in part.kind and "Tower" not in part.kind]
    if any(_EMBEDDINGS.fullmatch(part.kind) or _EMBEDDINGS.fullmatch(part.attribute) for part in inner):
        return "embeddings"
    if _EMBEDDINGS.fullmatch(attribute) and leaf.module is owner:
        return "embeddings"
    return "other"


def _in_block(path: list[Any], name: str) -> str:
    attribute = name.rpartition(".")[2]
    if _SCALE.fullmatch(attribute) or (path and (_SCALE.fullmatch(path[-1].kind) or is_norm(path[-1].module))):
        inside = any(_ATTENTION.fullmatch(part.kind) for part in path[:-1])
        return "attention" if inside and is_norm(path[-1].module) else "norm"
    for part in path:
        if _ATTENTION.fullmatch(part.kind) or part.attribute in ("attn", "self_attn", "attention"):
            return "attention"
        if (
            _MLP.fullmatch(part.kind)
            or part.attribute in ("mlp", "ffn", "feed_forward")
            or _MLP_LINEAR.fullmatch(part.attribute)
        ):
            return "mlp"
    return "other"
