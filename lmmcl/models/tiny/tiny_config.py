"""The sizes of the tiny models as plain dictionaries: what `from_dict` of a transformers configuration reads."""

from __future__ import annotations

from typing import Any

from lmmcl.models.tiny.tiny_processor import EOS, IMAGE_SIZE, PAD, PATCH_SIZE, QWEN_PATCH_SIZE, vocabulary

SEED = 0
"""The seed of the weights of a model that is not pre-trained."""

_WIDTH = 96
_GENERATION = {"do_sample": False}


def configuration(style: str) -> dict[str, Any]:
    """The configuration of `onevision`, `next` or `qwen`; its `model_type` names the transformers class."""
    return {"onevision": _onevision, "next": _next, "qwen": _qwen}[style]()


def generation(style: str) -> dict[str, Any]:
    """Generation settings: greedy, and the tokens that pad and end."""
    words = vocabulary("qwen" if style == "qwen" else "llava")
    return {**_GENERATION, "pad_token_id": words[PAD], "eos_token_id": words[EOS]}


def _language(style: str, **more: Any) -> dict[str, Any]:
    words = vocabulary(style)
    return {
        "vocab_size": len(words),
        "hidden_size": _WIDTH,
        "intermediate_size": 384,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "max_position_embeddings": 1024,
        "pad_token_id": words[PAD],
        "bos_token_id": None,
        "eos_token_id": words[EOS],
        "tie_word_embeddings": True,
        **more,
    }


def _onevision() -> dict[str, Any]:
    words = vocabulary("llava")
    return {
        "model_type": "llava_onevision",
        "text_config": {"model_type": "qwen2", "use_sliding_window": False, **_language("llava")},
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": _WIDTH,
            "intermediate_size": 2 * _WIDTH,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "image_size": IMAGE_SIZE,
            "patch_size": PATCH_SIZE,
            "vision_use_head": False,
        },
        "image_token_index": words["<image>"],
        "video_token_index": words[PAD],
        "image_grid_pinpoints": [[0, 0]],  # no tile beyond the base view
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "multimodal_projector_bias": True,
        "tie_word_embeddings": True,
    }


def _next() -> dict[str, Any]:
    words = vocabulary("llava")
    return {
        "model_type": "llava_next",
        "text_config": {"model_type": "llama", **_language("llava", tie_word_embeddings=False)},
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": _WIDTH,
            "intermediate_size": 2 * _WIDTH,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "image_size": IMAGE_SIZE,
            "patch_size": PATCH_SIZE,
            "projection_dim": _WIDTH,
        },
        "image_token_index": words["<image>"],
        "image_grid_pinpoints": [[IMAGE_SIZE, IMAGE_SIZE], [IMAGE_SIZE, 2 * IMAGE_SIZE], [2 * IMAGE_SIZE, IMAGE_SIZE]],
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": False,
    }


def _qwen() -> dict[str, Any]:
    words = vocabulary("qwen")
    rope = {"rope_type": "default", "type": "default", "mrope_section": [2, 5, 5], "rope_theta": 10000.0}
    return {
        "model_type": "qwen2_5_vl",
        "text_config": {
            "model_type": "qwen2_5_vl_text",
            "use_sliding_window": False,
            "rope_parameters": rope,
            **_language("qwen"),
        },
        "vision_config": {
            "depth": 2,
            "hidden_size": _WIDTH,
            "intermediate_size": 2 * _WIDTH,
            "num_heads": 4,
            "patch_size": QWEN_PATCH_SIZE,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 2 * PATCH_SIZE,
            "fullatt_block_indexes": [1],
            "out_hidden_size": _WIDTH,
        },
        "image_token_id": words["<|image_pad|>"],
        "video_token_id": words["<|video_pad|>"],
        "vision_start_token_id": words["<|vision_start|>"],
        "vision_end_token_id": words["<|vision_end|>"],
        "tie_word_embeddings": True,
    }
