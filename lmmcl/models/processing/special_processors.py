"""Processor classes of ours, where a class of transformers cannot be used as it is: each says why.

They are defined on first use because this module must import without transformers.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

from lmmcl.errors import UserError


@cache
def smolvlm() -> type:
    """SmolVLM's processor without its video processor."""
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
def instructblip() -> type:
    """InstructBLIP's processor with a chat template of ours; the Q-Former reads the question too."""
    from transformers import InstructBlipProcessor

    return _queried(InstructBlipProcessor, "ChatInstructBlipProcessor")


@cache
def blip2() -> type:
    """BLIP-2's processor with a chat template of ours."""
    from transformers import Blip2Processor

    return _queried(Blip2Processor, "ChatBlip2Processor")


def _queried(base: Any, name: str) -> type:
    class Queried(base):
        """A BLIP-2 kind of processor with the interface of those that came after it: a template, and an image token."""

        def __init__(self, image_processor: Any, tokenizer: Any, *parts: Any, **settings: Any) -> None:
            super().__init__(image_processor, tokenizer, *parts, **settings)
            self.image_token: Any = _ImageToken(str(getattr(self, "image_token")))  # noqa: B009  # an AddedToken or text
            self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
            self.chat_template = INSTRUCTION

        def __call__(self, images: Any = None, text: Any = None, **more: Any) -> Any:
            """Raises UserError unless there is one image: the Q-Former reads one with each instruction."""
            self.leading_ids(len(images or ()))
            return super().__call__(images=images, text=text, **more)

        def leading_ids(self, images: int) -> list[int]:
            """What stands before the instruction: the image's tokens come even before the start of the text."""
            if images != 1:
                kind = base.__name__.removesuffix("Processor").replace("Blip", "BLIP")
                raise UserError(f"{kind} takes one image per question, not {images}")
            start = [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]
            return [self.image_token_id] * self.num_query_tokens + start

    Queried.__init__.__signature__ = inspect.signature(base.__init__)  # type: ignore[attr-defined]
    Queried.__name__ = Queried.__qualname__ = name
    return Queried


@cache
def pixtral() -> type:
    """Pixtral's processor on Pillow's image processor, without torchvision."""
    from transformers import ProcessorMixin

    class PillowPixtralProcessor(ProcessorMixin):
        """Pixtral's and Mistral 3's processor (transformers' own class is defined only where torchvision is).

        A row of patches is as many image tokens and a break; the last row ends with the end of the image.
        """

        def __init__(
            self,
            image_processor: Any = None,
            tokenizer: Any = None,
            patch_size: int = 16,
            spatial_merge_size: int = 1,
            chat_template: str | None = None,
            image_token: str = "[IMG]",
            image_break_token: str = "[IMG_BREAK]",
            image_end_token: str = "[IMG_END]",
        ) -> None:
            super().__init__(image_processor, tokenizer, chat_template=chat_template)
            self.patch_size, self.spatial_merge_size = patch_size, spatial_merge_size
            self.image_token, self.image_break_token, self.image_end_token = (
                image_token,
                image_break_token,
                image_end_token,
            )
            self.image_token_id = tokenizer.convert_tokens_to_ids(image_token)
            self.image_token_ids = tokenizer.convert_tokens_to_ids([image_token, image_break_token, image_end_token])

        @property
        def merged_patch(self) -> int:
            """Pixels along the side of what becomes one token."""
            return self.patch_size * self.spatial_merge_size

        def _process_images(self, images: Any, **settings: Any) -> Any:
            return super()._process_images(images, **{**settings, "patch_size": self.merged_patch})

        def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs: Any) -> str:
            height, width = (int(side) // self.merged_patch for side in image_inputs["image_sizes"][image_idx])
            rows = [self.image_token * width] * height
            return self.image_break_token.join(rows) + self.image_end_token

    return PillowPixtralProcessor
