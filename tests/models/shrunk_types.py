"""What single types need besides, to be built in small."""

from __future__ import annotations

from typing import Any

WORDS = 320
"""Size of the vocabulary; the ids of special tokens lie at its end."""

TEXT, VISION = 64, 32
"""Widths of the language model and of the vision tower."""


def _rope(*section: int) -> dict[str, Any]:
    return {"text_config": {"rope_parameters": {"mrope_section": list(section)}}}


_MLA = {"num_key_value_heads": 4}
SPECIAL: dict[str, dict[str, Any]] = {
    "gemma3": {"mm_tokens_per_image": 4},
    "shieldgemma2": {"mm_tokens_per_image": 4},
    "t5gemma2": {"encoder": {"mm_tokens_per_image": 4}},
    "vipllava": {"vision_feature_layers": [-2, -1], "vision_feature_layer": [-2, -1]},
    "llava_next": {"image_grid_pinpoints": [[32, 32]]},
    "llava_next_video": {"image_grid_pinpoints": [[32, 32]]},
    "llava_onevision": {"image_grid_pinpoints": [[32, 32]]},
    "aria": {"projector_patch_to_query_dict": {16: 4}},
    "blip-2": {"image_token_index": 300},
    "instructblip": {"image_token_index": 300},
    "instructblipvideo": {"video_token_index": 300},
    "paddleocr_vl": _rope(4, 2, 2),
    "qwen2_5_vl": _rope(4, 2, 2),
    "qwen2_vl": _rope(4, 2, 2),
    "pix2struct": {"vision_config": {"hidden_size": TEXT, "d_kv": 16, "d_ff": 48, "num_attention_heads": 4}},
    "pp_formulanet": {
        "vision_config": {
            "post_conv_in_channels": 16,
            "post_conv_mid_channels": 24,
            "post_conv_out_channels": 40,
            "output_channels": 16,
            "decoder_hidden_size": TEXT,
        }
    },
    "step3p7": {"text_config": {"sliding_window": 16}},
    "unlimited_ocr": {"text_config": _MLA},
    "apertus1p5": {
        "image_token_offset": 200,
        "audio_token_offset": 216,
        "vision_config": {"codebook_size": 16},
        "audio_config": {"hidden_size": 512, "codebook_size": 16},
    },
    "chameleon": {"vocabulary_map": {"<image>": 300, **{f"IMGIMGA{n}Z": 200 + n for n in range(8)}}},
    "cohere_compass": {
        "first": {
            "text_config": {
                "rope_parameters": {
                    kind: {"rope_type": "default", "rope_theta": 1e4}
                    for kind in ("full_attention", "sliding_attention")
                }
            }
        }
    },
    "deepseek_ocr2": {
        "text_config": {"mlp_layer_types": ["dense", "sparse", "sparse", "sparse"], "num_experts_per_tok": 2}
    },
    "dots3_note": {
        "text_config": {"num_key_value_heads": 4},
        "vision_config": {"adapter_in_dim": VISION, "adapter_out_dim": TEXT},
        "audio_config": {"adapter_input_size": 24, "adapter_output_size": TEXT},
    },
    "emu3": {
        "vocabulary_map": {
            "<image>": 300,
            "<|extra_200|>": 301,
            **{f"<|visual token {n:06d}|>": 200 + n for n in range(8)},
        }
    },
    "ernie4_5_vl_moe": {"text_config": {"rope_parameters": {"mrope_section": [3, 3, 2]}}},
    "gemma4": {"first": {"vision_config": {}}},
    "gemma4_unified": {"first": {"vision_config": {}}},
    "glm46v": _rope(4, 2, 2),
    "glm4v": _rope(4, 2, 2),
    "glm4v_moe": _rope(2, 1, 1),
    "glm5_next": {"text_config": {"num_key_value_heads": 4, "qk_rope_head_dim": 0, "qk_nope_head_dim": 16}},
    "glm_ocr": _rope(4, 2, 2),
    "glmga": _rope(4, 2, 2),
    "granite4_vision": {
        "deepstack_layer_map": [[-2, 0]],
        "downsample_rate": "1/2",
        "image_grid_pinpoints": [[32, 32]],
        "vision_config": {"hidden_size": 64, "image_size": 32},
    },
    "hunyuan_vl": {
        "text_config": {
            "head_dim": 16,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [3, 3, 2]},
        }
    },
    "inkling2": {"vision_config": {"text_hidden_size": TEXT}},
    "inkling2_loop": {"vision_config": {"text_hidden_size": TEXT}},
    "inkling_mm_model": {"vision_config": {"text_hidden_size": TEXT, "num_hidden_layers": 3, "patch_size": 4}},
    "kosmos-2": {"latent_query_num": 4},
    "kosmos-2.5": {"latent_query_num": 4},
    "kimi_k25": {"text_config": _MLA | {"head_dim": 8}},
    "mistral4": _MLA,
    "mistral_large4": {"text_config": _MLA},
    "molmo2": {"adapter_config": {"vision_feature_layer": [-1, -2]}},
    "muse_spark": {"audio_config": {"out_hidden_size": TEXT}},
    "qwen2_5_omni_thinker": {
        **_rope(4, 2, 2),
        "vision_start_token_id": 310,
        "vision_end_token_id": 309,
        "audio_start_token_id": 308,
        "audio_config": {"encoder_attention_heads": 2},
    },
    "qwen3_omni_moe_thinker": {
        "vision_start_token_id": 310,
        "vision_end_token_id": 309,
        "audio_start_token_id": 308,
        "audio_config": {"encoder_attention_heads": 2},
    },
    "qwen4_exp": {
        "text_config": {
            "hc_lowrank": 8,
            "indexer_n_heads": 2,
            "indexer_kv_heads": 1,
            "indexer_head_dim": 16,
            "indexer_budget": 16,
            "indexer_compress_ratio": 4,
        }
    },
}
"""What a type needs besides: `first` are arguments of its default configuration."""
