"""Processors of real checkpoints: transformers' own classes, for images alone, the same on every machine.

Every part is chosen by what the checkpoint was saved with: the processor class (without its video and audio parts, see
`assembly.py`), the image processor in its Pillow variant, the tokenizers. Images go through Pillow wherever transformers can do
that: a backend that happens to be installed must not decide pixels. Where it cannot, torchvision is asked for before anything runs.

The classes are defined on first use because this module must import without transformers:
`from lmmcl.models.processing.processors import ImageOnlyInternVLProcessor` works.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lmmcl.errors import UserError
from lmmcl.models.architecture import Architecture
from lmmcl.models.inputs.many_tiles import give_tiles
from lmmcl.models.inputs.model_settings import ModelSettings
from lmmcl.models.model_class import forward_inputs, model_class
from lmmcl.models.processing import assembly, special_processors
from lmmcl.models.processing.encode import hold
from lmmcl.models.processing.rendering import Renderer
from lmmcl.tasks.examples import Message

if TYPE_CHECKING:
    from transformers import ProcessorMixin

OURS = ("lmmcl.models.processing.processors", "lmmcl.models.tiny.tiny_processor")

CLASSES: dict[str, Callable[[], type]] = {
    "ImageOnlySmolVLMProcessor": special_processors.smolvlm,
    "ChatInstructBlipProcessor": special_processors.instructblip,
    "ChatBlip2Processor": special_processors.blip2,
    "PillowPixtralProcessor": special_processors.pixtral,
}
"""Classes of ours; any other `ImageOnlyXProcessor` is the assembly of transformers' `XProcessor`."""

INSTEAD = {
    "SmolVLMProcessor": "ImageOnlySmolVLMProcessor",
    "InstructBlipProcessor": "ChatInstructBlipProcessor",
    "Blip2Processor": "ChatBlip2Processor",
    "PixtralProcessor": "PillowPixtralProcessor",
}
"""Which of them stands for which class of transformers."""


def load_processor(architecture: Architecture, source: dict[str, Any]) -> ProcessorMixin:
    """The processor of the checkpoint at `source` (keywords of `from_pretrained`); it pads on the left.

    Raises UserError, with the reason, for a checkpoint whose dialogues cannot be read: a part that transformers cannot load here,
    an encoder that reads the question apart from the answer, no chat template, no image token.
    """
    try:
        return _loaded(architecture, source)
    except (ImportError, ValueError, TypeError, AttributeError, KeyError, OSError) as error:  # whatever a class wants
        reason = " ".join(str(error).split())
        raise UserError(
            f"transformers cannot load its processor: {type(error).__name__}: {reason}", file=_place(source)
        ) from error


def _loaded(architecture: Architecture, source: dict[str, Any]) -> ProcessorMixin:
    import transformers

    config = transformers.AutoConfig.from_pretrained(**source)
    check_decoder(config, _place(source))
    settings, image_settings = saved_settings(source)
    cls = _processor_class(architecture, config, source, settings, image_settings)
    image_class = _image_class(architecture, config, image_settings, _place(source))
    tokenizer = transformers.AutoTokenizer.from_pretrained(**source, padding_side="left")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    parts = {"image_processor": image_class.from_pretrained(**source), "tokenizer": tokenizer}
    for part in cls.get_attributes():
        if "tokenizer" in part and part not in parts:
            parts[part] = transformers.AutoTokenizer.from_pretrained(**source, subfolder=part)
    processor = assembly.build(cls, {part: parts[part] for part in cls.get_attributes()}, settings)
    _complete(processor, settings, config)
    hold(processor, forward_inputs(model_class(config, _place(source))))
    _check(processor, _place(source))
    return processor


def apply_settings(processor: Any, settings: ModelSettings, place: str) -> Any:
    """The processor, reading as `settings` say; raises UserError where its chat template writes no system turn."""
    if not settings:
        return processor
    processor.model_settings = settings  # an attribute of the processor: it goes where the processor goes
    if settings.tiles:
        give_tiles(processor)
    if settings.system is not None and not _writes_system(processor, settings.system):
        raise UserError("system: its chat template writes no system turn; remove `system`", file=place)
    return processor


def _writes_system(processor: Any, system: str) -> bool:
    """Whether the chat template writes a system turn: some leave it out silently, and some refuse it."""
    from jinja2 import TemplateError

    try:
        return system in Renderer(processor, [Message("user", "?")]).write(1, prompt=True)
    except TemplateError:
        return False


def check_decoder(config: Any, place: str) -> None:
    """Raises UserError for models that read the question with an encoder: answers are taught after the question's own tokens."""
    text = config.get_text_config(decoder=True)
    if config.is_encoder_decoder or text.is_encoder_decoder:
        raise UserError(
            f"{config.model_type} reads the question with an encoder and writes the answer with a decoder of its own "
            f"({text.model_type}); only decoders that read both can be trained",
            file=place,
        )


def saved_settings(source: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was saved with the processor, and with its image processor."""
    import transformers
    from transformers.image_processing_base import ImageProcessingMixin

    options = {key: value for key, value in source.items() if key != "pretrained_model_name_or_path"}
    settings, _ = transformers.ProcessorMixin.get_processor_dict(source["pretrained_model_name_or_path"], **options)
    images, _ = ImageProcessingMixin.get_image_processor_dict(source["pretrained_model_name_or_path"], **options)
    return settings, images


def _place(source: dict[str, Any]) -> str:
    return f"model {source['pretrained_model_name_or_path']}"


def _processor_class(
    architecture: Architecture, config: Any, source: dict[str, Any], settings: dict[str, Any], images: dict[str, Any]
) -> Any:
    """The class that saved the processor when it is one of ours, else the family's, else the checkpoint's, for images alone."""
    saved = settings.get("processor_class") or images.get("processor_class") or _of_tokenizer(source)
    if saved and (saved in CLASSES or saved.startswith((assembly.PREFIX, "Tiny"))):
        for ours in map(importlib.import_module, OURS):
            if hasattr(ours, saved):
                return getattr(ours, saved)
    module, _, name = architecture.processor.rpartition(":")
    if module:
        return getattr(importlib.import_module(module), name)
    return transformers_class(saved if name == "AutoProcessor" else name, config, _place(source))


def transformers_class(name: str | None, config: Any, place: str) -> Any:
    """The processor class `name` of transformers, or the one of the configuration, without video and audio parts.

    Raises UserError when there is none, or it does not read single images.
    """
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    name = name or PROCESSOR_MAPPING_NAMES.get(config.model_type)
    if name in INSTEAD:
        return CLASSES[INSTEAD[name]]()
    cls: Any = getattr(transformers, name or "", None)
    if cls is None:
        raise UserError(
            f"transformers has no processor class for model_type {config.model_type!r}"
            + (f" ({name!r} is saved with it)" if name else " and none is saved with it"),
            file=place,
        )
    if "image_processor" not in cls.get_attributes() or "tokenizer" not in cls.get_attributes():
        raise UserError(
            f"its processor {name} reads {' and '.join(cls.get_attributes())}, not images and text", file=place
        )
    return _named_here(assembly.image_only(cls)) if assembly.absent_parts(cls) else cls


def _of_tokenizer(source: dict[str, Any]) -> str | None:
    """The class of the processor as the tokenizer's settings name it, as older checkpoints do."""
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    options = {key: value for key, value in source.items() if key != "pretrained_model_name_or_path"}
    return get_tokenizer_config(source["pretrained_model_name_or_path"], **options).get("processor_class")


def _image_class(architecture: Architecture, config: Any, saved: dict[str, Any], place: str) -> Any:
    """The class that works with Pillow of what the checkpoint was saved with; torchvision's where there is no other."""
    import transformers

    names = image_class_names(architecture, config.model_type, saved.get("image_processor_type"))
    for name in names:
        cls: Any = getattr(transformers, name, None)
        if cls is not None and not getattr(cls, "is_dummy", False):
            return cls
    raise UserError(needs_torchvision(names), file=place)


def image_class_names(architecture: Architecture, model_type: str, saved: str | None) -> list[str]:
    """Names of image processor classes that can read the checkpoint's images, the best first."""
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

    base = (saved or "").removesuffix("Fast").removesuffix("Pil")
    usual = IMAGE_PROCESSOR_MAPPING_NAMES.get(model_type) or {}
    family = architecture.image_processor if architecture.image_processor != "AutoImageProcessor" else None
    mine = [f"{base}Pil", *([base] if base else [])]
    names = mine if base else [family, usual.get("pil"), usual.get("torchvision")]
    return [name for name in dict.fromkeys([*names, family]) if name and name != "Pil"]


def needs_torchvision(names: list[str]) -> str:
    """What to say where none of the image processor classes `names` can be used."""
    return (
        f"its images need {names[-1] if names else 'an image processor that transformers does not have'}, which transformers "
        "offers only with torchvision: pip install torchvision"
    )


def _check(processor: Any, place: str) -> None:
    """Raises UserError unless a dialogue can be written, and it is known where images go."""
    if getattr(processor, "chat_template", None) is None:
        processor.chat_template = getattr(processor.tokenizer, "chat_template", None)
    if processor.chat_template is None:
        raise UserError(
            "has no chat template, which defines how a question is written; put one into chat_template.jinja of the directory",
            file=place,
        )
    if not hasattr(processor, "image_token"):
        raise UserError(
            f"its processor {type(processor).__name__} knows no image token, so images have no place in the text",
            file=place,
        )


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


def _named_here(cls: type) -> type:
    """The class, to be found by its name in this module, as pickle does."""
    cls.__module__ = __name__
    return cls


def __getattr__(name: str) -> type:
    if name in CLASSES:
        return _named_here(CLASSES[name]())
    base: Any = None
    if name.startswith(assembly.PREFIX) and name.endswith("Processor"):
        import transformers

        base = getattr(transformers, name.removeprefix(assembly.PREFIX), None)
    if base is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _named_here(assembly.image_only(base))
