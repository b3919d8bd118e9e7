"""Any image-text-to-text type of transformers in small: its default configuration with few layers, widths and words.

Widths differ between parts (language 64, vision 32), so that a tensor of one part can never stand for one of another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.shrunk_types import SPECIAL, TEXT, VISION, WORDS

_KEPT = {"token_type_ids", "image_seq_length", "mm_tokens_per_image"}
_LANGUAGE: dict[str, Any] = {
    "hidden_size": TEXT,
    "d_model": TEXT,
    "intermediate_size": 96,
    "moe_intermediate_size": 48,
    "dense_intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_heads": 4,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "attention_heads": 4,
    "layers": 2,
    "head_dim": 16,
    "global_head_dim": 16,
    "swa_head_dim": 16,
    "d_kv": 16,
    "d_ff": 96,
    "ffn_dim": 96,
    "encoder_ffn_dim": 96,
    "decoder_ffn_dim": 96,
    "embed_dim": TEXT,
    "word_embed_proj_dim": TEXT,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "qk_head_dim": 16,
    "v_head_dim": 16,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_k": 2,
    "moe_topk": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_head_dim": 16,
    "linear_num_heads": 4,
    "mamba_num_heads": 4,
    "mamba_head_dim": 16,
    "ssm_state_size": 8,
    "n_groups": 2,
    "vocab_size": WORDS,
    "max_position_embeddings": 512,
    "sliding_window": 16,
    "sliding_window_size": 16,
    "shared_intermediate_size": 48,
    "share_expert_dim": 48,
    "shared_expert_intermediate_size": 48,
    "moe_shared_expert_intermediate_size": 48,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": WORDS,
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 2,
    "num_sliding_attention_heads": 4,
    "index_head_dim": 16,
    "index_n_heads": 2,
    "index_topk": 16,
    "index_topk_blocks": 2,
    "index_block_size": 8,
    "intermediate_size_mlp": 96,
    "attention_chunk_size": 32,
    "moe_hidden_size": 32,
    "num_kv_shared_layers": 0,
    "rotary_dim": 8,
    "image_token_embed_dim": 32,
    "encoder_hidden_size": VISION,
}
_VISION: dict[str, Any] = {
    "hidden_size": VISION,
    "embed_dim": VISION,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "depth": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_heads": 2,
    "image_size": 32,
    "patch_size": 8,
    "layers": 2,
    "num_layers": 2,
    "mlp_dim": 48,
    "d_model": VISION,
    "num_global_layers": 1,
    "projection_dim": VISION,
    "head_dim": 16,
    "attention_heads": 2,
    "out_hidden_size": TEXT,
    "projector_hidden_size": 40,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "num_position_embeddings": 64,
    "vocab_size": 24,
}
_OTHER: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "encoder_hidden_size": VISION,
    "vocab_size": WORDS,
    "d_model": 24,
    "encoder_layers": 2,
}
_LISTS = ("layer_types", "mlp_layer_types", "no_rope_layers", "layer_rope_theta", "indexer_types")


def shrunk(model_type: str) -> dict[str, Any]:
    """The configuration of a small model of `model_type`, for `AutoConfig.for_model`."""
    from transformers import AutoConfig

    special = SPECIAL.get(model_type, {})
    values = AutoConfig.for_model(model_type, **special.get("first", {})).to_dict()
    small = _small(values, "text_config", iter(range(WORDS - 1, 0, -1)))
    return _merged(small, {key: value for key, value in special.items() if key != "first"})


def _merged(values: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in more.items():
        inner = values.get(key)
        values[key] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return values


def _small(values: Mapping[str, Any], kind: str, ids: Any) -> dict[str, Any]:
    table = _LANGUAGE if _is_text(kind) else _VISION if "vis" in kind or "vq" in kind else _OTHER
    small: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and (name.endswith("_config") or name in ("encoder", "decoder")):
            small[name] = _small(value, name if "model_type" in value else kind, ids)
        elif name.endswith(("_token_id", "_token_index")) and isinstance(value, int):
            small[name] = value if value < 4 else next(ids)
        elif name in table and isinstance(value, int | float) and not isinstance(value, bool):
            small[name] = table[name]
        else:
            small[name] = value
    _cut_layers(values, small)
    _fit_rope(small, small)
    return small


def _cut_layers(values: Mapping[str, Any], small: dict[str, Any]) -> None:
    """Lists with an entry a layer keep those of as many layers as there are now, one of each kind first."""
    layers, kept = values.get("num_hidden_layers"), small.get("num_hidden_layers")
    if not isinstance(layers, int) or not isinstance(kept, int):
        return
    lists = {name: value for name, value in values.items() if isinstance(value, list) and len(value) == layers}
    rows = list(zip(*(map(str, value) for value in lists.values()), strict=True)) or [()] * layers
    chosen = [at for at in range(layers) if rows[at] not in rows[:at]][:kept]
    chosen = sorted([*chosen, *(at for at in range(layers) if at not in chosen)][:kept])
    small |= {name: [value[at] for at in chosen] for name, value in lists.items()}
    special = values.get("per_layer_config")
    if isinstance(special, dict):
        small["per_layer_config"] = {
            new: {**special[key], **{name: small[name] for name in special[key] if name in _LANGUAGE}}
            for new, old in enumerate(chosen)
            if (key := next((key for key in special if str(key) == str(old)), None)) is not None
        }


def _fit_rope(values: Any, config: Mapping[str, Any]) -> None:
    """Sections of a rotary embedding add up to half of the width that they divide."""
    if not isinstance(values, dict):
        return
    for value in values.values():
        if isinstance(value, dict) and "model_type" not in value:
            _fit_rope(value, config)
    if "partial_rotary_factor" in values:
        values["partial_rotary_factor"] = max(0.5, values["partial_rotary_factor"] or 0.5)
    if values.get("mrope_section"):
        width = config.get("qk_rope_head_dim") or int(
            (config.get("head_dim") or 16) * (values.get("partial_rotary_factor") or 1)
        )
        half = width // 2
        values["mrope_section"] = [half - 2 * (half // 3), half // 3, half // 3]


def _is_text(kind: str) -> bool:
    return any(word in kind for word in ("text", "llm", "language", "decoder"))
