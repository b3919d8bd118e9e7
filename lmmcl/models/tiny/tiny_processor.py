"""Tokenizer, image processors and chat template of the tiny models: built offline from a word list that ships.

The tokenizer knows ordinary words, and every letter, digit and punctuation mark both at the beginning of a word and
inside one (`##a`), so a word that it does not know is spelt, not lost. Spaces separate words and are not tokens.

`TinyOnevisionProcessor` and `TinyQwenProcessor` are real transformers processors, defined on first use because this
module must import without transformers: `from lmmcl.models.tiny.tiny_processor import TinyOnevisionProcessor` works.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, ProcessorMixin

DATA = Path(__file__).parents[1] / "data"
IMAGE_SIZE = 32
PATCH_SIZE = 8
QWEN_PATCH_SIZE = 4  # it merges 2 × 2 patches into one token

PAD, EOS, UNKNOWN = "<pad>", "<end>", "<unk>"
ROLE_TOKENS = ("<system>", "<user>", "<assistant>")
IMAGE_TOKENS = {
    "llava": {"image_token": "<image>"},
    "qwen": {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "vision_start_token": "<|vision_start|>",
        "vision_end_token": "<|vision_end|>",
    },
}
IMAGE_MARKS = {"llava": "<image>", "qwen": "<|vision_start|><|image_pad|><|vision_end|>"}

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<' + message['role'] + '>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ 'IMAGE_MARK' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<end>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


@cache
def vocabulary(style: str) -> dict[str, int]:
    """Token → number. The special tokens come first, then characters, their inner forms, then words."""
    characters = string.ascii_letters + string.digits + string.punctuation + "–’°×"
    words = (DATA / "tiny_vocabulary.txt").read_text().split()
    special = [PAD, EOS, UNKNOWN, *ROLE_TOKENS, *IMAGE_TOKENS[style].values()]
    tokens = [*special, *characters, *(f"##{c}" for c in characters), *words]
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}


def build_tokenizer(style: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a family: `style` is `llava` or `qwen` (they mark images by different tokens)."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = vocabulary(style)
    tokenizer = Tokenizer(models.WordPiece(vocab=words, unk_token=UNKNOWN, max_input_chars_per_word=1000))
    # Accents are dropped so that every Latin word can be spelt with the letters that exist.
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    special = [PAD, EOS, UNKNOWN, *ROLE_TOKENS, *IMAGE_TOKENS[style].values()]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        extra_special_tokens=IMAGE_TOKENS[style],
    )


def build_processor(style: str) -> ProcessorMixin:
    """The processor of `onevision`, `next` or `qwen`: tokenizer, image processor (PIL) and chat template."""
    builders = {"onevision": _build_onevision, "next": _build_next, "qwen": _build_qwen}
    return builders[style]()


def _template(style: str) -> str:
    return CHAT_TEMPLATE.replace("IMAGE_MARK", IMAGE_MARKS[style])


def _build_onevision() -> ProcessorMixin:
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    return _onevision_class()(
        SiglipImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}),
        build_tokenizer("llava"),
        num_image_tokens=(IMAGE_SIZE // PATCH_SIZE) ** 2,
        vision_feature_select_strategy="full",
        chat_template=_template("llava"),
    )


def _build_next() -> ProcessorMixin:
    from transformers import LlavaNextProcessor
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    side = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    return LlavaNextProcessor(
        LlavaNextImageProcessorPil(
            size={"shortest_edge": IMAGE_SIZE},
            crop_size=side,
            image_grid_pinpoints=[[IMAGE_SIZE, IMAGE_SIZE], [IMAGE_SIZE, 2 * IMAGE_SIZE], [2 * IMAGE_SIZE, IMAGE_SIZE]],
        ),
        build_tokenizer("llava"),
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_template("llava"),
    )


def _build_qwen() -> ProcessorMixin:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    pixels = IMAGE_SIZE * IMAGE_SIZE
    return _qwen_class()(
        Qwen2VLImageProcessorPil(
            patch_size=QWEN_PATCH_SIZE, size={"shortest_edge": pixels, "longest_edge": 4 * pixels}
        ),
        build_tokenizer("qwen"),
        chat_template=_template("qwen"),
    )


@cache
def _onevision_class() -> type:
    from lmmcl.models.processing import processors
    from lmmcl.models.processing.control_tokens import once

    base: Any = processors.ImageOnlyLlavaOnevisionProcessor

    class TinyOnevisionProcessor(base):
        """LLaVA-OneVision's processor for images alone and without high-resolution tiles.

        An image is its base view: `num_image_tokens` patches and one newline. The model gets the same from its
        configuration (`image_grid_pinpoints` [[0, 0]]: no tile beyond the base).
        """

        def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs: Any) -> str:
            return self.image_token * (self.num_image_tokens + 1)

        def _process_images(self, images: Any, **kwargs: Any) -> tuple[Any, list[str]]:
            processed, replacements = super()._process_images(images, **kwargs)
            processed["image_sizes"] = _sizes(processed["pixel_values"])
            return processed, replacements

        def images_alone(self, images: Sequence[Any]) -> dict[str, Any] | None:
            """What it makes of drawn pictures, whatever text is around them (see `encode`); None for other images."""
            if not _pixel_by_pixel(images, self.image_processor):
                return None
            levels = once(self.image_processor, "levels", lambda: _levels(self.image_processor))
            pixel_values = _looked_up(levels, images)
            return {"pixel_values": pixel_values, "image_sizes": _sizes(pixel_values)}

    return _as_module_member(TinyOnevisionProcessor)


def _pixel_by_pixel(images: Sequence[Any], image_processor: Any) -> bool:
    """Whether each value follows from one pixel: RGB images of PIL, of the size that they are shown in, as drawn ones are."""
    from PIL.Image import Image

    side = image_processor.size
    keeps_size = (side.height, side.width) == (IMAGE_SIZE, IMAGE_SIZE)
    return (
        bool(images)
        and keeps_size
        and not (image_processor.do_center_crop or image_processor.do_pad)
        and all(isinstance(image, Image) and image.mode == "RGB" for image in images)
        and all(image.size == (IMAGE_SIZE, IMAGE_SIZE) for image in images)
    )


def _levels(image_processor: Any) -> Any:
    """What the image processor makes of each of the 256 levels of each channel, an array (3, 256)."""
    import numpy as np

    ramp = np.resize(np.arange(256, dtype=np.uint8), (IMAGE_SIZE, IMAGE_SIZE, 1)).repeat(3, axis=2)
    shown = image_processor(ramp, input_data_format="channels_last", return_tensors="np")["pixel_values"]
    return shown.reshape(3, -1)[:, :256].copy()


def _looked_up(levels: Any, images: Sequence[Any]) -> Any:
    """The pixel values (images, 3, height, width): processing a small picture takes ten times as long as looking them up."""
    import numpy as np
    import torch

    pixels = np.stack([np.asarray(image).transpose(2, 0, 1) for image in images])
    return torch.from_numpy(np.stack([levels[channel][pixels[:, channel]] for channel in range(3)], axis=1))


def _sizes(pixel_values: Any) -> Any:
    """Height and width of each image, which the model wants beside the pixels, as what the pixels are kept in."""
    import numpy as np
    import torch

    sizes = [list(image.shape[-2:]) for image in pixel_values]
    return torch.tensor(sizes) if isinstance(pixel_values, torch.Tensor) else np.array(sizes)


@cache
def _qwen_class() -> type:
    from lmmcl.models.processing import processors

    base: Any = processors.ImageOnlyQwen2_5_VLProcessor

    class TinyQwenProcessor(base):
        """Qwen2.5-VL's processor for images alone."""

    return _as_module_member(TinyQwenProcessor)


def _as_module_member(cls: type) -> type:
    """So that pickle finds the class by its name in this module, as if it had been defined at the top."""
    cls.__module__, cls.__qualname__ = __name__, cls.__name__
    return cls


def __getattr__(name: str) -> type:
    classes = {"TinyOnevisionProcessor": _onevision_class, "TinyQwenProcessor": _qwen_class}
    if name not in classes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return classes[name]()
