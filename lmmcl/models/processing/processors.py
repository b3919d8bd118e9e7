"""Processors of real checkpoints: transformers' own classes, for images alone, the same on every machine.

transformers' classes for LLaVA-OneVision, Qwen, InternVL and SmolVLM want a video processor, which needs torchvision, and
`AutoProcessor` silently returns a bare tokenizer where that is missing. The subclasses here leave the videos out and change
nothing else. Images always go through Pillow: a backend that happens to be installed must not decide pixels.

The classes are defined on first use because this module must import without transformers:
`from lmmcl.models.processing.processors import ImageOnlyInternVLProcessor` works.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from lmmcl.errors import UserError
from lmmcl.models.architecture import Architecture

if TYPE_CHECKING:
    from transformers import ProcessorMixin

OURS = ("lmmcl.models.processing.processors", "lmmcl.models.tiny.tiny_processor")


def load_processor(architecture: Architecture, source: dict[str, Any]) -> ProcessorMixin:
    """The processor of the checkpoint at `source` (keywords of `from_pretrained`); it pads on the left."""
    import transformers
    from transformers.image_processing_base import ImageProcessingMixin

    place, options = source["pretrained_model_name_or_path"], _without_place(source)
    if architecture.processor == "AutoProcessor":
        return _unknown_processor(source)
    settings, _ = transformers.ProcessorMixin.get_processor_dict(place, **options)
    image_settings, _ = ImageProcessingMixin.get_image_processor_dict(place, **options)
    cls = _processor_class(architecture, settings.get("processor_class"))
    image_class = _image_class(architecture, image_settings.get("image_processor_type"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(**source, padding_side="left")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    parts = [image_class.from_pretrained(**source), tokenizer]
    if "qformer_tokenizer" in cls.get_attributes():
        parts.append(transformers.AutoTokenizer.from_pretrained(**source, subfolder="qformer_tokenizer"))
    processor = cls.from_args_and_dict(parts, settings)
    _complete(processor, settings, transformers.AutoConfig.from_pretrained(**source))
    return processor


def _unknown_processor(source: dict[str, Any]) -> ProcessorMixin:
    """What transformers finds for an architecture without a family file; it must be able to say where images go."""
    import transformers

    processor = transformers.AutoProcessor.from_pretrained(**source)
    wanted = ("tokenizer", "image_processor", "image_token", "_process_images")
    if missing := [name for name in wanted if not hasattr(processor, name)]:
        raise UserError(
            f"transformers gives {type(processor).__name__} as its processor, which has no {', '.join(missing)} "
            "(processors that also read videos need torchvision)",
            file=f"model {source['pretrained_model_name_or_path']}",
        )
    processor.tokenizer.padding_side = "left"
    return processor


def _without_place(source: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in source.items() if key != "pretrained_model_name_or_path"}


def _processor_class(architecture: Architecture, saved: str | None) -> Any:
    """The class that saved the processor when it is one of ours, else the one of the family."""
    import transformers

    module, _, name = architecture.processor.rpartition(":")
    for ours in map(importlib.import_module, OURS):
        if saved and saved.endswith("Processor") and hasattr(ours, saved):
            return getattr(ours, saved)
    return getattr(importlib.import_module(module) if module else transformers, name)


def _image_class(architecture: Architecture, saved: str | None) -> Any:
    """The class that works with Pillow of what the checkpoint was saved with."""
    import transformers

    name = f"{(saved or '').removesuffix('Fast').removesuffix('Pil')}Pil"
    return getattr(transformers, name if hasattr(transformers, name) else architecture.image_processor)


def _complete(processor: Any, settings: dict[str, Any], config: Any) -> None:
    """Fill in from the model's configuration what older checkpoints do not say of their image tokens."""
    vision: Any = getattr(config, "vision_config", None)
    if getattr(processor, "vision_feature_select_strategy", "") is None:
        processor.vision_feature_select_strategy = config.vision_feature_select_strategy
    if getattr(processor, "patch_size", 0) is None:
        processor.patch_size = vision.patch_size
    if getattr(processor, "num_image_tokens", 0) is None:
        processor.num_image_tokens = (vision.image_size // vision.patch_size) ** 2
    if hasattr(processor, "num_additional_image_tokens") and "num_additional_image_tokens" not in settings:
        processor.num_additional_image_tokens = int(vision.model_type == "clip_vision_model")  # CLIP's class token
    if getattr(processor, "num_query_tokens", 0) is None:
        processor.num_query_tokens = config.num_query_tokens


@cache
def _onevision() -> type:
    from transformers import LlavaOnevisionProcessor

    class ImageOnlyLlavaOnevisionProcessor(LlavaOnevisionProcessor):
        """LLaVA-OneVision's processor for images alone."""

        def __init__(
            self,
            image_processor: Any = None,
            tokenizer: Any = None,
            num_image_tokens: int | None = None,
            vision_feature_select_strategy: str | None = None,
            chat_template: str | None = None,
            image_token: str = "<image>",
            video_token: str = "<video>",
            vision_aspect_ratio: str = "anyres_max_9",
        ) -> None:
            super().__init__(
                image_processor,
                tokenizer,
                num_image_tokens=num_image_tokens,
                vision_feature_select_strategy=vision_feature_select_strategy,
                chat_template=chat_template,
                image_token=image_token,
                video_token=video_token,
                vision_aspect_ratio=vision_aspect_ratio,
            )

    return ImageOnlyLlavaOnevisionProcessor


@cache
def _qwen(parent: str) -> type:
    import transformers

    base: Any = getattr(transformers, parent)

    class ImageOnlyQwenProcessor(base):
        """Qwen-VL's processor for images alone."""

        def __init__(
            self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None
        ) -> None:
            super().__init__(image_processor, tokenizer, chat_template=chat_template)

    ImageOnlyQwenProcessor.__name__ = f"ImageOnly{parent}"  # it is saved and loaded by its name
    return ImageOnlyQwenProcessor


@cache
def _internvl() -> type:
    from transformers import InternVLProcessor

    class ImageOnlyInternVLProcessor(InternVLProcessor):
        """InternVL's processor for images alone."""

        def __init__(
            self,
            image_processor: Any = None,
            tokenizer: Any = None,
            image_seq_length: int = 256,
            chat_template: str | None = None,
        ) -> None:
            super().__init__(image_processor, tokenizer, image_seq_length=image_seq_length, chat_template=chat_template)

        @property
        def input_names_dropped(self) -> list[str]:
            """What its image processor returns to count tokens by, and the model does not take."""
            return ["num_patches"]

    return ImageOnlyInternVLProcessor


@cache
def _smolvlm() -> type:
    from transformers import ProcessorMixin, SmolVLMProcessor

    class ImageOnlySmolVLMProcessor(SmolVLMProcessor):
        """SmolVLM's processor for images alone (its own wants num2words, to tell the number of a video's frames)."""

        def __init__(
            self,
            image_processor: Any = None,
            tokenizer: Any = None,
            image_seq_len: int = 169,
            chat_template: str | None = None,
        ) -> None:
            self.fake_image_token = getattr(tokenizer, "fake_image_token", "<fake_token_around_image>")
            self.image_token = getattr(tokenizer, "image_token", "<image>")
            self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
            self.end_of_utterance_token = getattr(tokenizer, "end_of_utterance_token", "<end_of_utterance>")
            self.global_image_token = getattr(tokenizer, "global_image_token", "<global-img>")
            self.image_seq_len = image_seq_len
            ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

        def apply_chat_template(  # type: ignore[override]  # the settings are named by what it calls
            self, conversation: Any, chat_template: str | None = None, **more: Any
        ) -> str:
            return ProcessorMixin.apply_chat_template(self, conversation, chat_template, **more)

    return ImageOnlySmolVLMProcessor


INSTRUCTION = (
    "{% for message in messages %}{% if not loop.first and loop.previtem['role'] != 'assistant' %}"
    "{{ ' ' if message['role'] == 'assistant' else '\n' }}{% endif %}{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)
"""InstructBLIP has no chat template: it is asked the bare instruction, and the answer is the next word."""


class _ImageToken(str):
    """A token's text, where transformers asks for an AddedToken's."""

    @property
    def content(self) -> str:
        """The text itself."""
        return str(self)


@cache
def _instructblip() -> type:
    from transformers import InstructBlipProcessor

    class ChatInstructBlipProcessor(InstructBlipProcessor):
        """InstructBLIP's processor with the interface of those that came after it: a template, and images by tokens."""

        def __init__(
            self, image_processor: Any, tokenizer: Any, qformer_tokenizer: Any, num_query_tokens: int | None = None
        ) -> None:
            super().__init__(image_processor, tokenizer, qformer_tokenizer, num_query_tokens=num_query_tokens)
            self.image_token = _ImageToken(str(self.image_token))  # type: ignore[assignment]  # an AddedToken or text
            self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
            self.chat_template = INSTRUCTION

        def __call__(self, images: Any = None, text: Any = None, **more: Any) -> Any:
            """Raises UserError unless there is one image: the Q-Former reads one with each instruction."""
            self.leading_ids(sum(map(len, images or ())))
            return super().__call__(images=images, text=text, **more)

        def leading_ids(self, images: int) -> list[int]:
            """What stands before the instruction: the image's tokens come even before the start of the text."""
            if images != 1:
                raise UserError(f"InstructBLIP is asked about one image at a time, not {images}")
            start = [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]
            return [self.image_token_id] * self.num_query_tokens + start

    return ChatInstructBlipProcessor


CLASSES: dict[str, Callable[[], type]] = {
    "ImageOnlyLlavaOnevisionProcessor": _onevision,
    "ImageOnlyQwen2_5_VLProcessor": partial(_qwen, "Qwen2_5_VLProcessor"),
    "ImageOnlyQwen3VLProcessor": partial(_qwen, "Qwen3VLProcessor"),
    "ImageOnlyInternVLProcessor": _internvl,
    "ImageOnlySmolVLMProcessor": _smolvlm,
    "ChatInstructBlipProcessor": _instructblip,
}


def __getattr__(name: str) -> type:
    if name not in CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    cls = CLASSES[name]()
    cls.__module__, cls.__qualname__ = __name__, name  # so that pickle finds it by its name in this module
    return cls
