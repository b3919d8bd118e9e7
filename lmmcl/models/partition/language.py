"""Roles inside the language model: token mixers and MLPs of its blocks, by the classes of their modules.

Blocks are numbered over all stacks in the model's order: an encoder's before its decoder's. A stack of cross-attention blocks
beside the decoder's (IDEFICS) shares the numbers of the blocks that they precede. Where blocks have several kinds of token
mixer or of MLP, the kind is the last part of the role: `attention.q.softmax`, `attention.q.linear`; `mlp.gate.dense`,
`mlp.gate.routed`, `mlp.gate.shared`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from lmmcl.models.partition.modules import Part, is_norm, number_blocks, path_to

_CROSS = re.compile(r".*CrossAttention(?!DecoderLayer|Layer).*")
_CROSS_NAME = re.compile(
    r"cross_?attn|cross_?attention|encoder_attn|EncDecAttention|encoder_decoder_attention", re.IGNORECASE
)
_LINEAR = re.compile(r".*(?:DeltaNet|LinearAttention|Mamba\w*Mixer|SSM\w*|ShortConv|RecurrentBlock)\d*")
_SOFTMAX = re.compile(r".*(?:Attention|Attn)(?!Residual)\w*")
_MLP = re.compile(
    r"(?i:.*(?:mlp|ffn|feedforward|moe|moelayer|experts|denseactdense|gatedactdense|layerff|intermediate|output))\w*"
)
_EXPERTS = re.compile(r"(?!.*Shared).*Experts\w*")
_SHARED = re.compile(r"shared_experts?|shared_mlp")
_ROUTER = re.compile(r".*(?:Router|TopK\w*|MoEGate|MoeStatics)")
_ROUTER_NAME = re.compile(r"router|shared_expert_gate|e_score_correction_bias|moe_statics")
_INDEXER = re.compile(r".*Indexer")
_PER_LAYER = re.compile(r"per_layer_\w+|embed_tokens_per_layer")
_ATTENTION_PARTS = (
    (re.compile(r"q|wq|q_proj|query|q_a_proj|q_b_proj|q_down_proj|q_up_proj"), "q"),
    (re.compile(r"k|wk|k_proj|key"), "k"),
    (re.compile(r"v|wv|v_proj|value"), "v"),
    (re.compile(r"qkv|qkv_proj|query_key_value|Wqkv|c_attn|in_proj|in_proj_qkvz?"), "q+k+v"),
    (re.compile(r"kv_a_proj_with_mqa|kv_b_proj|kv_proj|wkv_[ab]"), "k+v"),
    (re.compile(r"o|wo|o_proj|out_proj|dense|output|c_proj"), "o"),
    (re.compile(r"gate_proj|g_proj|in_proj_z|z_proj|g_[ab]_proj"), "gate"),
)
_MLP_PARTS = (
    (re.compile(r"gate_up_proj(?:_bias)?"), "gate+up"),
    (re.compile(r"gate_proj(?:_bias)?|wi_0"), "gate"),
    (re.compile(r"up_proj(?:_bias)?|wi_1|wi|fc1|lin1|c_fc|linear_in|dense_h_to_4h|w3"), "up"),
    (re.compile(r"down_proj(?:_bias)?|wo|fc2|lin2|c_proj|linear_out|dense_4h_to_h|w2"), "down"),
    (re.compile(r"w1"), "gate"),
)
_BLOCK_LINEAR = {"fc1": "up", "fc2": "down"}


def language_roles(model: Any, names: Iterable[str]) -> dict[str, str]:
    """The role of each of `names`, all of the language model."""
    names = list(names)
    numbers = _numbers(model, names)
    roles = {name: _role(model, name, numbers) for name in names}
    linear = any(role.endswith(".linear") for role in roles.values())
    routed = any(role.endswith(".routed") for role in roles.values())
    return {name: _with_kind(role, linear=linear, routed=routed) for name, role in roles.items()}


def _numbers(model: Any, names: Sequence[str]) -> dict[str, int]:
    numbers = number_blocks(model, names)
    stacks: dict[str, list[str]] = {}
    for block in numbers:
        stacks.setdefault(block.rpartition(".")[0], []).append(block)
    for stack, blocks in stacks.items():
        beside = next((other for other in stacks if other != stack and _above(other) == _above(stack)), None)
        if beside and "cross" in stack.rpartition(".")[2]:
            interval = len(stacks[beside]) // len(blocks)
            first = numbers[stacks[beside][0]]
            numbers |= {block: first + at * interval for at, block in enumerate(blocks)}
    return numbers


def _above(stack: str) -> str:
    return stack.rpartition(".")[0]


def _with_kind(role: str, *, linear: bool, routed: bool) -> str:
    parts = role.split(".")
    if parts[1] == "blocks" and parts[3] in ("attention", "mlp") and len(parts) == 5:
        if parts[3] == "attention" and linear:
            return f"{role}.softmax"
        if parts[3] == "mlp" and routed:
            return f"{role}.dense"
    return role


def _role(model: Any, name: str, numbers: dict[str, int]) -> str:
    path = path_to(model, name)
    for depth, part in enumerate(path):
        if part.name in numbers:
            return f"llm.blocks.{numbers[part.name]}.{_in_block(path[depth + 1 :], name.rpartition('.')[2])}"
    attributes = [part.attribute for part in path]
    if any(_PER_LAYER.fullmatch(attribute) for attribute in attributes):
        return "llm.per_layer_embeddings"
    if path and is_norm(path[-1].module):
        return "llm.norm"
    if any(attribute in ("lm_head", "cls", "output") for attribute in attributes):
        return "llm.head"
    is_table = bool(path) and "Embedding" in path[-1].kind
    if is_table or any("embed" in attribute.lower() for attribute in attributes):
        return "llm.embeddings"
    return "llm.other"


def _in_block(path: Sequence[Part], attribute: str) -> str:
    """The role of a parameter in its block, from the modules below the block and its own name."""
    if (path and is_norm(path[-1].module)) or (not path and "norm" in attribute):
        return "norm"
    for depth, part in enumerate(path):
        below = [inner.attribute for inner in path[depth + 1 :]] + [attribute]
        if _INDEXER.fullmatch(part.kind):
            return "indexer"
        if _ROUTER.fullmatch(part.kind) or _ROUTER_NAME.fullmatch(part.attribute):
            return "router"
        if _PER_LAYER.fullmatch(part.attribute):
            return "per_layer"
        if _CROSS_NAME.fullmatch(part.attribute) or _CROSS.fullmatch(part.kind):
            return f"cross_attention.{_part(_ATTENTION_PARTS, below)}"
        if _LINEAR.fullmatch(part.kind):
            return f"attention.{_part(_ATTENTION_PARTS, below)}.linear"
        if _SOFTMAX.fullmatch(part.kind):
            inner = path[depth + 1 :]
            if any(_INDEXER.fullmatch(deeper.kind) for deeper in inner):
                return "indexer"
            return f"attention.{_part(_ATTENTION_PARTS, below)}"
        if part.attribute in _BLOCK_LINEAR:
            return f"mlp.{_BLOCK_LINEAR[part.attribute]}"
        if _MLP.fullmatch(part.kind):
            return _in_mlp(path[depth:], attribute)
    return "other"


def _in_mlp(path: Sequence[Part], attribute: str) -> str:
    if any(_ROUTER.fullmatch(part.kind) or _ROUTER_NAME.fullmatch(part.attribute) for part in path):
        return "router"
    if path[-1].attribute == "gate" and len(path) > 1:  # a mixture's scores; a gated MLP's first layer is `gate_proj`
        return "router"
    below = [part.attribute for part in path[1:]] + [attribute]
    part = _part(_MLP_PARTS, below)
    if part == "other":  # BERT: `intermediate.dense` widens, `output.dense` narrows
        part = {"intermediate": "up", "intermediate_query": "up", "output": "down", "output_query": "down"}.get(
            path[0].attribute, "other"
        )
    if any(_SHARED.fullmatch(inner.attribute) for inner in path):
        return f"mlp.{part}.shared"
    if any(_EXPERTS.fullmatch(inner.kind) for inner in path):
        return f"mlp.{part}.routed"
    return f"mlp.{part}"


def _part(table: Sequence[tuple[re.Pattern[str], str]], below: Sequence[str]) -> str:
    """The part that the first name of `below` in `table` stands for."""
    for name in below:
        for pattern, part in table:
            if pattern.fullmatch(name):
                return part
    return "other"
