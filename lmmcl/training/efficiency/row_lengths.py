"""About how many tokens a row has, without encoding it: rows of like length make batches with little padding.

An estimate: text is tokenised without its chat template, an image counted by the size in its header. It decides the order of rows
inside an update and nothing else, so what it gets wrong costs padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lmmcl.errors import UserError
from lmmcl.private_api.trainer_private import count_image_tokens
from lmmcl.tasks.examples import IMAGE_PLACEHOLDER, Example
from lmmcl.tasks.images import ImageSource, inspect_image

PIXELS_PER_TOKEN = 28 * 28
"""Of processors that do not say how they count (Qwen2.5-VL's)."""
MOST_IMAGE_TOKENS = 4096


@dataclass(frozen=True)
class RowLengths:
    """Estimated tokens of rows of `examples`, each estimated once; `max_tokens` are those that a row is cut to."""

    processor: Any
    examples: Sequence[Example]
    max_tokens: int | None = None
    _known: dict[int, int] = field(default_factory=dict)

    def __call__(self, row: int) -> int:
        """Tokens of a row; 0 for one that cannot be read, which is refused with its name when it is encoded."""
        if row not in self._known:
            try:
                tokens = self._count(self.examples[row])
            except (UserError, OSError, ValueError):
                tokens = 0
            self._known[row] = tokens if self.max_tokens is None else min(tokens, self.max_tokens)
        return self._known[row]

    def _count(self, example: Example) -> int:
        texts = [message.content.replace(IMAGE_PLACEHOLDER, "") for message in example.messages]
        text = sum(len(ids) for ids in self.processor.tokenizer(texts)["input_ids"])
        return text + sum(self._image(image) for image in example.images)

    def _image(self, image: ImageSource) -> int:
        facts = inspect_image(image)
        tokens = count_image_tokens(self.processor, facts.width, facts.height)
        return min(facts.pixels // PIXELS_PER_TOKEN + 1, MOST_IMAGE_TOKENS) if tokens is None else tokens
