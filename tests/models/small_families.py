"""Every family in small with random weights: real model class, real processor class, saved as a checkpoint is."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmmcl.models.architecture import get_architecture
from lmmcl.models.tiny.tiny_processor import vocabulary

SIDE, PATCH = 32, 8
PATCHES = (SIDE // PATCH) ** 2
GRID = [[SIDE, SIDE], [SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}{{ 'IMAGE' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
VICUNA = (  # as LLaVA-1.5's: no start mark, no end of a turn
    "{% for m in messages %}{{ m['role'].upper() + ': ' }}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>\n' }}{% endif %}{% endfor %}{% for part in m['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] + ' ' }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else 'user') + '\n' }}"
    "{% for part in m['content'] %}{% if part['type'] == 'image' %}{{ '<start_of_image>' }}"
    "{% else %}{{ part['text'] | trim }}{% endif %}{% endfor %}{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
SMOL = (
    "<|im_start|>{% for m in messages %}{{ m['role'] | capitalize }}"
    "{% if m['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}{% for part in m['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}{{ '<image>' }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
THINKING = (  # asks for a thought unless told not to, and closes an empty one in the text of a dialogue
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' and loop.last %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}{{ 'IMAGE' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{{ '<think>\n\n</think>\n\n' if enable_thinking is defined and not enable_thinking else '<think>\n' }}{% endif %}"
)
ALWAYS_THINKING = (  # cannot be asked not to, and writes no thought in the text of a dialogue
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}{{ 'IMAGE' }}{% else %}{{ part['text'].split('</think>')[-1] }}{% endif %}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
CHATML_MARKS = ("<|im_start|>", "<|im_end|>")


def tokenizer(*marks: str, eos: str, bos: str | None = None, **named: str) -> Any:
    """A word-piece tokenizer over the tiny models' words; `named` tokens are known to processors by their names."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = [*dict.fromkeys(["<pad>", "<unk>", eos, *([bos] if bos else []), *marks, *named.values()])]
    words = [*special, *(word for word in vocabulary("llava") if word not in special)]
    numbers = {word: number for number, word in enumerate(words)}
    made = Tokenizer(models.WordPiece(vocab=numbers, unk_token="<unk>", max_input_chars_per_word=1000))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    if bos:
        made.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, numbers[bos])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token=eos,
        bos_token=bos,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        extra_special_tokens=named,
    )


def language(words: Any, model_type: str, **more: Any) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "vocab_size": len(words),
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "pad_token_id": words.pad_token_id,
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        **more,
    }


def tower(model_type: str, **more: Any) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": PATCH,
        **more,
    }


def _parts(family: str) -> tuple[Any, Any]:
    """The classes of the processor and of the image processor that the family names."""
    import transformers

    architecture = get_architecture(family)
    assert architecture is not None
    module, _, name = architecture.processor.rpartition(":")
    processor = getattr(importlib.import_module(module) if module else transformers, name)
    return processor, getattr(transformers, architecture.image_processor)


def _square() -> dict[str, int]:
    return {"height": SIDE, "width": SIDE}


def llava(family: str = "llava") -> tuple[dict, Any]:
    words = tokenizer(bos="<s>", eos="</s>", image_token="<image>")
    cls, images = _parts("llava")
    processor = cls(
        images(size={"shortest_edge": SIDE}, crop_size=_square()),
        words,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=VICUNA,
    )
    config = {
        "model_type": family,
        "text_config": language(words, "llama"),
        "vision_config": tower("clip_vision_model", num_hidden_layers=3, projection_dim=32),
        "image_token_index": words.image_token_id,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": False,
    }
    return config, processor


def llava_next() -> tuple[dict, Any]:
    config, small = llava()
    cls, images = _parts("llava_next")
    processor = cls(
        images(size={"shortest_edge": SIDE}, crop_size=_square(), image_grid_pinpoints=GRID),
        small.tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=VICUNA,
    )
    return {**config, "model_type": "llava_next", "image_grid_pinpoints": GRID}, processor


def llava_onevision() -> tuple[dict, Any]:
    words = tokenizer(*CHATML_MARKS, eos="<|im_end|>", image_token="<image>", video_token="<video>")
    cls, images = _parts("llava_onevision")
    processor = cls(
        images(size=_square(), image_grid_pinpoints=GRID),
        words,
        num_image_tokens=PATCHES,
        vision_feature_select_strategy="full",
        chat_template=CHATML.replace("IMAGE", "<image>\n"),
    )
    config = {
        "model_type": "llava_onevision",
        "text_config": language(words, "qwen2", tie_word_embeddings=True),
        "vision_config": tower("siglip_vision_model", vision_use_head=False),
        "image_token_index": words.image_token_id,
        "video_token_index": words.video_token_id,
        "image_grid_pinpoints": GRID,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "tie_word_embeddings": True,
    }
    return config, processor


QWEN_TOKENS = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}


def _qwen(family: str, text: dict, vision: dict, patch: int) -> tuple[dict, Any]:
    words = tokenizer(*CHATML_MARKS, eos="<|im_end|>", **QWEN_TOKENS)
    cls, images = _parts(family)
    processor = cls(
        images(patch_size=patch, size={"shortest_edge": SIDE * SIDE, "longest_edge": 4 * SIDE * SIDE}),
        words,
        chat_template=CHATML.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>"),
    )
    config = {
        "model_type": family,
        "text_config": {**language(words, f"{family}_text"), **text},
        "vision_config": {
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "patch_size": patch,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": 48,
            **vision,
        },
        **{
            key.replace("_token", "_token_id"): words.convert_tokens_to_ids(value) for key, value in QWEN_TOKENS.items()
        },
        "tie_word_embeddings": False,
    }
    return config, processor


def qwen2_5_vl() -> tuple[dict, Any]:
    rope = {"rope_type": "default", "mrope_section": [2, 2, 2], "rope_theta": 10000.0}
    return _qwen(
        "qwen2_5_vl", {"rope_parameters": rope}, {"window_size": 16, "fullatt_block_indexes": [1]}, patch=PATCH // 2
    )


def qwen3_vl() -> tuple[dict, Any]:
    rope = {"rope_type": "default", "mrope_interleaved": True, "mrope_section": [2, 2, 2], "rope_theta": 10000.0}
    return _qwen(
        "qwen3_vl",
        {"rope_parameters": rope, "head_dim": 12},
        {"deepstack_visual_indexes": [0], "num_position_embeddings": 64},
        patch=PATCH // 2,
    )


def internvl() -> tuple[dict, Any]:
    words = tokenizer(
        *CHATML_MARKS,
        eos="<|im_end|>",
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    cls, images = _parts("internvl")
    processor = cls(
        images(size=_square(), max_patches=4, crop_to_patches=True),
        words,
        image_seq_length=PATCHES // 4,
        chat_template=CHATML.replace("IMAGE", "<IMG_CONTEXT>\n"),
    )
    vision = {**tower("internvl_vision"), "image_size": [SIDE, SIDE], "patch_size": [PATCH, PATCH]}
    config = {
        "model_type": "internvl",
        "text_config": language(words, "qwen2"),
        "vision_config": {**vision, "attention_bias": True},
        "image_token_id": words.context_image_token_id,
        "image_seq_length": PATCHES // 4,
        "downsample_ratio": 0.5,
        "tie_word_embeddings": False,
    }
    return config, processor


def smolvlm() -> tuple[dict, Any]:
    rows = [f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4)]
    words = tokenizer(
        "<|im_start|>",
        *rows,
        eos="<end_of_utterance>",
        image_token="<image>",
        fake_image_token="<fake_token_around_image>",
        global_image_token="<global-img>",
        end_of_utterance_token="<end_of_utterance>",
    )
    cls, images = _parts("smolvlm")
    processor = cls(
        images(size={"longest_edge": 2 * SIDE}, max_image_size={"longest_edge": SIDE}),
        words,
        image_seq_len=PATCHES // 4,
        chat_template=SMOL,
    )
    config = {
        "model_type": "smolvlm",
        "text_config": language(words, "llama"),
        "vision_config": tower("smolvlm_vision"),
        "image_token_id": words.image_token_id,
        "scale_factor": 2,
        "tie_word_embeddings": False,
    }
    return config, processor


def gemma3() -> tuple[dict, Any]:
    words = tokenizer(
        "<start_of_turn>",
        "<end_of_turn>",
        bos="<bos>",
        eos="<eos>",
        image_token="<image_soft_token>",
        boi_token="<start_of_image>",
        eoi_token="<end_of_image>",
    )
    cls, images = _parts("gemma3")
    processor = cls(images(size=_square()), words, image_seq_length=PATCHES // 4, chat_template=GEMMA)
    config = {
        "model_type": "gemma3",
        "text_config": language(words, "gemma3_text", head_dim=12, sliding_window=32),
        "vision_config": tower("siglip_vision_model", vision_use_head=False),
        "mm_tokens_per_image": PATCHES // 4,
        "image_token_index": words.image_token_id,
        "boi_token_index": words.boi_token_id,
        "eoi_token_index": words.eoi_token_id,
    }
    return config, processor


def instructblip() -> tuple[dict, Any]:
    words = tokenizer(bos="<s>", eos="</s>", image_token="<image>")
    asked = tokenizer(eos="[SEP]", bos="[CLS]")
    cls, images = _parts("instructblip")
    processor = cls(images(size=_square()), words, asked, num_query_tokens=4)
    config = {
        "model_type": "instructblip",
        "num_query_tokens": 4,
        "text_config": language(words, "llama"),
        "vision_config": {**tower("instructblip_vision_model"), "qkv_bias": True},
        "qformer_config": {
            "vocab_size": len(asked),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "cross_attention_frequency": 2,
            "encoder_hidden_size": 32,
        },
        "image_token_index": words.image_token_id,
        "tie_word_embeddings": False,
    }
    return config, processor


FAMILIES: dict[str, Callable[[], tuple[dict, Any]]] = {
    build.__name__: build
    for build in (
        llava,
        llava_next,
        llava_onevision,
        qwen2_5_vl,
        qwen3_vl,
        internvl,
        smolvlm,
        gemma3,
        instructblip,
    )
}


def save(directory: Path, config: dict, processor: Any) -> Path:
    """A checkpoint directory with random weights of a fixed seed."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = AutoModelForImageTextToText.from_config(AutoConfig.for_model(**config), dtype=torch.float32)
        for name, parameter in model.named_parameters():
            if "query_tokens" in name:  # zero at first, which would give every query the same answer
                torch.nn.init.normal_(parameter, std=0.02)
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory
