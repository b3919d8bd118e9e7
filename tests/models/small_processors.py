"""The processor of any image-text-to-text type in small: its real classes, a tiny tokenizer with the tokens that they name.

Which special tokens a processor class wants is read from its source: those that it asks its tokenizer for by name, and those that
it spells out. The tokens of a configuration (`image_token_id`, `boi_token_index`, …) are then those of the processor.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

from models.small_families import CHATML, CHATML_MARKS, tokenizer

from lmmcl.models.families.generic import guess_architecture
from lmmcl.models.processing.assembly import build
from lmmcl.models.processing.processors import image_class_names, transformers_class

SIDE, PATCH = 32, 8
WORDS = 320
SQUARE = {"height": SIDE, "width": SIDE}
GRID = [[SIDE, SIDE], [SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]

CLASSES = {
    "cosmos3_omni": "Qwen3VLProcessor",
    "fast_vlm": "LlavaProcessor",
    "glm_ocr": "Glm46VProcessor",
    "glmga": "Glm46VProcessor",
    "kosmos-2": "Kosmos2Processor",
    "kosmos-2.5": "Kosmos2_5Processor",
    "qwen2_5_omni_thinker": "Qwen2_5OmniProcessor",
    "qwen3_omni_moe_thinker": "Qwen3OmniMoeProcessor",
}
"""Types whose checkpoints name their processor, and transformers' table does not."""

IMAGES = {
    "fast_vlm": "CLIPImageProcessor",
    "glm4v_moe": "Glm4vImageProcessor",
    "glm_ocr": "Glm46VImageProcessor",
    "qwen2_5_omni_thinker": "Qwen2VLImageProcessor",
    "qwen3_omni_moe_thinker": "Qwen2VLImageProcessor",
    "qwen3_vl_moe": "Qwen2VLImageProcessor",
}
"""Likewise of their image processors."""


SMALL_TOWER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "patch_size": PATCH,
}
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}

CONFIG: dict[str, dict[str, Any]] = {
    "aria": {
        "vision_config": {"image_size": 490, "patch_size": 70},
        "projector_patch_to_query_dict": {"49": 4, "196": 8},
    },
    "chameleon": {
        "vocabulary_map": {"<image>": 5, **{f"IMGIMG{'ABCDEFGH'[n]}Z": 40 + n for n in range(8)}},
        "vq_config": {"num_embeddings": 8, "resolution": SIDE, "base_channels": 32, "channel_multiplier": [1, 2, 2]},
    },
    "cohere_compass": {
        "text_config": {"rope_parameters": {"full_attention": MROPE}},
    },
    "deepseek_ocr2": {
        "text_config": {
            "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
            "max_position_embeddings": 4096,
            "num_experts_per_tok": 2,
        },
        "vision_config": {
            "sam_config": {"downsample_channels": [16, 24], "image_size": 1024, "patch_size": 16},
            "encoder_config": {"hidden_size": 24, "num_key_value_heads": 2},
        },
    },
    "gemma4": {"vision_config": {"model_type": "gemma4_vision", **SMALL_TOWER}},
    "mistral_large4": {"text_config": {"num_key_value_heads": 4, "index_topk": 512}},
    "hy_v4_vl": {"text_config": {"index_topk": 512}},
    "dots3_note": {
        "text_config": {"index_topk": 512},
        "vision_config": {
            "adapter_in_dim": 32,
            "adapter_out_dim": 64,
            "moe_intermediate_size": 48,
            "num_local_experts": 4,
        },
        "audio_config": {
            "adapter_input_size": 24,
            "adapter_out_dim": 64,
            "num_key_value_heads": 2,
            "head_dim": 12,
            "conv_output_size": 7680,
        },
    },
    "emu3": {
        "vocabulary_map": {"<image>": 5, "<|extra_200|>": 6, **{f"<|visual token {n:06}|>": 40 + n for n in range(8)}},
        "vq_config": {"codebook_size": 8, "base_channels": 32, "channel_multiplier": [1, 1, 1, 1], "embed_dim": 4},
    },
    "ernie4_5_vl_moe": {"text_config": {"rope_parameters": {**MROPE, "mrope_section": [3, 3, 2]}}},
    "got_ocr2": {"vision_config": {"image_size": 512}},
    "glm46v": {"text_config": {"rope_parameters": MROPE}},
    "glm4v": {"text_config": {"rope_parameters": MROPE}},
    "glm4v_moe": {
        "text_config": {"rope_parameters": {**MROPE, "mrope_section": [2, 1, 1], "partial_rotary_factor": 0.5}}
    },
    "glm_ocr": {"text_config": {"rope_parameters": MROPE}},
    "glmga": {"text_config": {"rope_parameters": MROPE}},
    "hunyuan_vl": {"text_config": {"head_dim": 16, "rope_parameters": {**MROPE, "mrope_section": [2, 2, 2, 2]}}},
    "minicpmv4_6": {"insert_layer_id": 1},
    "minicpmv4_7": {"insert_layer_id": 1},
    "qwen4_exp": {
        "text_config": {
            "indexer_n_heads": 2,
            "indexer_kv_heads": 1,
            "indexer_head_dim": 16,
            "indexer_budget": 16,
            "indexer_compress_ratio": 4,
        }
    },
    "deepseek_vl_hybrid": {"high_res_vision_config": {"image_size": SIDE, "patch_size": PATCH}},
    "gemma3": {"mm_tokens_per_image": 4},
    "idefics2": {"perceiver_config": {"resampler_n_latents": 4}},
    "instructblip": {"num_query_tokens": 4},
    "internvl": {"image_seq_length": 4, "vision_config": {"image_size": [SIDE, SIDE], "patch_size": [PATCH, PATCH]}},
    "janus": {"vision_config": {"projection_dim": 64, "num_image_tokens": 16}},
    "kosmos-2.5": {"latent_query_num": 16, "vision_config": {"patch_embed_hidden_size": 3 * PATCH**2}},
    "llava_next": {"image_grid_pinpoints": GRID},
    "llava_next_video": {"image_grid_pinpoints": GRID},
    "llava_onevision": {"image_grid_pinpoints": GRID},
    "mllama": {"vision_config": {"vision_output_dim": 96, "intermediate_layers_indices": [0, 1], "max_num_tiles": 4}},
    "qianfan_ocr": {"image_seq_length": 4, "vision_config": {"image_size": [SIDE, SIDE], "patch_size": [PATCH, PATCH]}},
    "paddleocr_vl": {"text_config": {"rope_parameters": MROPE}},
    "paligemma": {"projection_dim": 64, "vision_config": {"projection_dim": 64}},
    "qwen2_5_vl": {"text_config": {"rope_parameters": MROPE}},
    "qwen2_vl": {"vision_config": {"hidden_size": 64}, "text_config": {"rope_parameters": MROPE}},
    "qwen2_5_omni_thinker": {
        "vision_start_token_id": 0,
        "audio_config": {"encoder_attention_heads": 2},
        "text_config": {"rope_parameters": MROPE},
    },
    "qwen3_omni_moe_thinker": {"vision_start_token_id": 0, "audio_config": {"encoder_attention_heads": 2}},
    "granite4_vision": {
        "deepstack_layer_map": [[-1, 0]],
        "spatial_target_layers": [0, 1, 2, 3],
        "downsample_rate": "1/2",
        "vision_config": {"hidden_size": 64},
        "image_grid_pinpoints": GRID,
    },
    "vipllava": {"vision_feature_layers": [-2, -1]},
}
"""What a small configuration needs beside its widths, to read small images."""

IMAGE_SETTINGS: dict[str, dict[str, Any]] = {
    "aria": {"max_image_size": 490, "min_image_size": 70},
    "deepseek_ocr2": {"size": {"height": 1024, "width": 1024}, "crop_to_patches": False},
    "emu3": {"min_pixels": SIDE * SIDE, "max_pixels": 4 * SIDE * SIDE},
    "deepseek_vl_hybrid": {"high_res_size": SQUARE},
    "dots3_note": {"temporal_patch_size": 1},
    "gemma4": {"max_soft_tokens": 70},
    "got_ocr2": {"size": {"height": 512, "width": 512}},
    "minicpmv4_6": {"scale_resolution": 64, "max_slice_nums": 2},
    "minicpmv4_7": {"scale_resolution": 64, "max_slice_nums": 2},
    "paligemma": {"image_seq_length": 16},
    "video_llava": {"size": {"shortest_edge": SIDE}, "crop_size": SQUARE},
}

SETTINGS: dict[str, dict[str, Any]] = {
    "aria": {"size_conversion": {490: 4, 980: 8}},
    "aya_vision": {"downsample_factor": 2},
    "chameleon": {"image_seq_length": 64},
    "deepseek_ocr2": {"patch_size": 16},
    "kosmos-2.5": {"num_image_tokens": 16},
    "granite4_vision": {"downsample_rate": "1/2"},
    "granite_docling": {"image_seq_len": 1},
    "ovis2": {"image_seq_length": 16},
}
"""What processors are made with, where it does not follow from the configuration."""

MARKS: dict[str, str] = {
    "fuyu": "",
    "hunyuan_vl": "<image_start><image><image_end>",
    "blip-2": "",
    "instructblip": "",
}
"""What the chat template writes for an image, where it is not the processor's image token."""


def small_config(model_type: str, values: dict[str, Any]) -> dict[str, Any]:
    """The values of a small configuration, for small images."""
    return _merged(values, CONFIG.get(model_type, {}))


def _merged(values: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    both = {**values, **more}
    return {
        name: _merged(values[name], value)
        if isinstance(value, dict) and isinstance(values.get(name), dict) and name in more
        else value
        for name, value in both.items()
    }


def small_processor(model_type: str, config: Any, **settings: Any) -> Any:
    """The processor for a small model of `config`; `settings` are the processor's own beside what follows from its parts."""
    cls = transformers_class(CLASSES.get(model_type), config, model_type)
    base = getattr(cls, "whole", cls)
    words = words_of(base)
    parts = {"image_processor": _images(model_type, config), "tokenizer": words}
    for part in cls.get_attributes():
        parts.setdefault(part, tokenizer(eos="[SEP]", bos="[CLS]"))
    takes = {**_usual(config), **SETTINGS.get(model_type, {}), **settings}
    processor = build(cls, {name: parts[name] for name in cls.get_attributes()}, takes)
    usual = getattr(processor, "image_placeholder_token", getattr(processor, "image_token", "<image>"))
    processor.chat_template = CHATML.replace("IMAGE", MARKS.get(model_type, str(usual)))
    return processor


def words_of(base: Any) -> Any:
    """A tokenizer with every special token that the source of a processor class names."""

    source = "".join(inspect.getsource(one) for one in base.__mro__ if one.__module__.startswith("transformers.models"))
    module = inspect.getsource(inspect.getmodule(base))
    named = set(re.findall(r"tokenizer\.(\w+_token)\b", source)) | set(
        re.findall(r'(?:getattr|hasattr)\((?:self\.)?tokenizer, "(\w+_token)"', source)
    )
    spelt = re.findall(r'"(<[^"<>\s{}]+>|\[[A-Z_]+\]|\|[A-Z]+\|)"', module)
    spelt += re.findall(r"<(?:IMG|img|image|frame|im)_?\w*>", module)
    own = {f"{name}_token" for name in ("eos", "bos", "pad", "unk", "sep", "cls", "mask", "add_bos", "add_eos")}
    tokens = {name: f"<{name.removesuffix('_token')}>" for name in sorted(named - own)}

    return tokenizer(*CHATML_MARKS, *dict.fromkeys(["<image>", *spelt]), bos="<s>", eos="<|im_end|>", **tokens)


def _usual(config: Any) -> dict[str, Any]:
    vision = getattr(config, "vision_config", config)
    patch = getattr(vision, "patch_size", PATCH)
    patch = patch[0] if isinstance(patch, list | tuple) else patch
    return {
        "patch_size": patch,
        "image_seq_length": getattr(config, "image_seq_length", None) or getattr(config, "mm_tokens_per_image", 4),
        "num_image_tokens": (SIDE // patch) ** 2,
        "image_seq_len": 4,
        "vision_feature_select_strategy": getattr(config, "vision_feature_select_strategy", "default"),
        "num_additional_image_tokens": 1,
        "spatial_merge_size": getattr(config, "spatial_merge_size", 1),
        "num_query_tokens": getattr(config, "num_query_tokens", None),
        "img_size": SIDE,
    }


def image_class(model_type: str) -> Any:
    """The image processor class of a type; its Pillow variant where there is one."""
    import transformers

    for name in image_class_names(guess_architecture(model_type), model_type, IMAGES.get(model_type)):
        cls: Any = getattr(transformers, name, None)
        if cls is not None and not getattr(cls, "is_dummy", False):
            return cls
    raise LookupError(f"{model_type}: no image processor without torchvision")


def _images(model_type: str, config: Any) -> Any:
    cls = image_class(model_type)
    vision = getattr(config, "vision_config", config)
    given: dict[str, Any] = {}
    size = getattr(cls, "size", None) or {}
    if set(size) == {"height", "width"}:
        given["size"] = SQUARE
    elif "shortest_edge" in size and size.get("longest_edge", 0) > 2000:
        given["size"] = {"shortest_edge": SIDE * SIDE, "longest_edge": 4 * SIDE * SIDE}
    elif set(size) == {"shortest_edge", "longest_edge"}:
        given["size"] = {"shortest_edge": SIDE, "longest_edge": 2 * SIDE}
    elif "longest_edge" in size:
        given["size"] = {"longest_edge": 2 * SIDE}
    elif "shortest_edge" in size:
        given["size"] = {"shortest_edge": SIDE}
    if getattr(cls, "crop_size", None):
        given["crop_size"] = SQUARE
    if getattr(cls, "max_image_size", None) and isinstance(cls.max_image_size, dict):
        given["max_image_size"] = {"longest_edge": SIDE}
    if isinstance(getattr(cls, "patch_size", None), int):
        given["patch_size"] = getattr(vision, "patch_size", PATCH)
    elif isinstance(getattr(cls, "patch_size", None), dict):
        given["patch_size"] = {"height": PATCH, "width": PATCH}
    for name in ("temporal_patch_size",):
        if hasattr(cls, name) and hasattr(vision, name):
            given[name] = getattr(vision, name)
    if hasattr(cls, "merge_size") and hasattr(vision, "spatial_merge_size"):
        given["merge_size"] = vision.spatial_merge_size
    if hasattr(cls, "image_grid_pinpoints"):
        given["image_grid_pinpoints"] = GRID
    if isinstance(getattr(cls, "max_patches", None), int):
        given["max_patches"] = 4
    return cls(**{**given, **IMAGE_SETTINGS.get(model_type, {})})


def with_tokens(values: dict[str, Any], processor: Any) -> dict[str, Any]:
    """A configuration whose special tokens are those of the processor."""
    words = processor.tokenizer
    found = {}
    for name, value in values.items():
        key = re.sub(r"_token_index$", "_token_id", str(name))
        if isinstance(value, dict):
            found[name] = with_tokens(value, processor)
        elif str(name).startswith("vocab_size") and value == WORDS:
            found[name] = len(words)
        elif key.endswith("_token_id") and (isinstance(value, int) or value is None):
            token = getattr(processor, key, None) if key != "image_token_id" else _image_id(processor)
            token = token if isinstance(token, int) else getattr(words, key, None)
            found[name] = token if isinstance(token, int) else value
        else:
            found[name] = value
    return found


def _image_id(processor: Any) -> Any:
    if type(processor).__name__ == "Ovis2Processor":
        return processor.tokenizer.convert_tokens_to_ids("<IMG_ATOM>")
    ids = [token for token in getattr(processor, "image_token_ids", []) if isinstance(token, int)]
    if type(processor).__name__.startswith(("Gemma3", "ShieldGemma2")):
        return processor.tokenizer.image_token_id
    return getattr(processor, "image_token_id", None) or (ids or [None])[0]
