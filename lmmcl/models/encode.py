"""From dialogues to tensors: one chat template, in one place, for training and evaluation alike.

What the model reads before an answer is the same text in training and in generation: the template is rendered with a
private mark in place of each assistant turn and cut there, and the answer begins after the template's own generation
prompt. Answers are tokenised apart from the prompt, as generation does. Works for every processor that follows
transformers' `ProcessorMixin` (LLaVA-OneVision, LLaVA-NeXT, Qwen2.5-VL, real or tiny).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lmmcl.errors import UserError
from lmmcl.tasks.base import IMAGE_PLACEHOLDER, Example, Message

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100
"""The label of a token that is not taught (what torch's cross entropy ignores)."""

# Processors are typed Any: which tokens and image tensors one has is known by its family alone.
_MARK = "\ue000"  # a private-use character: no text of a user contains it
_FILL = {"attention_mask": 0, "labels": IGNORED, "mm_token_type_ids": 0}


def encode(processor: Any, example: Example, *, with_answer: bool) -> dict[str, Tensor]:
    """One example as tensors: `input_ids`, `attention_mask` (and `labels`) of shape (tokens,), and its image tensors.

    With the answer, `labels` are IGNORED except on assistant turns including the token that ends the turn. Without, the
    last assistant message is left out and the generation prompt ends the tokens.

    Raises UserError when placeholders and images are not equally many.
    """
    import torch

    marks = sum(message.content.count(IMAGE_PLACEHOLDER) for message in example.messages)
    if marks != len(example.images):
        raise UserError(f"example {example.id!r} has {marks} {IMAGE_PLACEHOLDER} for {len(example.images)} images")
    tensors, expansions = _images(processor, example)
    pending = iter(expansions)
    ids: list[int] = []
    labels: list[int] = []
    for text, taught in _segments(processor, example.messages, with_answer=with_answer):
        # Only the template writes image tokens: an answer that spells one must not consume an image.
        tokens = _tokens(processor, text if taught else _expand(processor, text, pending))
        ids += tokens
        labels += tokens if taught else [IGNORED] * len(tokens)
    encoded = {"input_ids": torch.tensor(ids), "attention_mask": torch.ones(len(ids), dtype=torch.long), **tensors}
    if getattr(processor, "return_mm_token_type_ids", False):
        encoded["mm_token_type_ids"] = (encoded["input_ids"] == processor.image_token_id).long()
    if with_answer:
        encoded["labels"] = torch.tensor(labels)
    return encoded


def pad(processor: Any, encoded: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """A batch for `model(**batch)` or `model.generate(**batch)`: tokens padded on the left, images concatenated.

    Shapes: tokens (batch, longest); image tensors (all images or patches of the batch, …). Raises ValueError for an
    empty list.
    """
    import torch

    if not encoded:
        raise ValueError("nothing to pad")
    longest = max(len(one["input_ids"]) for one in encoded)
    fills = {"input_ids": processor.tokenizer.pad_token_id, **_FILL}
    batch: dict[str, Tensor] = {}
    for key in dict.fromkeys(key for one in encoded for key in one):
        parts = [one[key] for one in encoded if key in one]
        if key in fills:
            batch[key] = torch.full((len(encoded), longest), fills[key], dtype=parts[0].dtype)
            for row, part in zip(batch[key], parts, strict=True):
                row[longest - len(part) :] = part
        else:
            batch[key] = torch.cat(_same_tiles(parts))
    return batch


def _segments(processor: Any, messages: Sequence[Message], *, with_answer: bool) -> list[tuple[str, bool]]:
    """The rendered dialogue in pieces: (text, whether it is taught), in order."""
    answers = [message.content for message in messages if message.role == "assistant"]
    prompt = _render(processor, messages[:-1], generation_prompt=True).split(_MARK)
    taught = _end_of_turns(processor, messages, answers) if with_answer or len(prompt) > 1 else []
    segments = []
    for number, piece in enumerate(prompt):
        end = taught[number - 1] if number else ""
        segments.append((piece.removeprefix(end), False))
        if number < len(prompt) - 1 or with_answer:
            segments.append((answers[number] + taught[number], True))
    return segments


def _end_of_turns(processor: Any, messages: Sequence[Message], answers: Sequence[str]) -> list[str]:
    """What the template writes after each answer up to the token that ends the turn (that token included)."""
    end = processor.tokenizer.eos_token
    after = _render(processor, messages, generation_prompt=False).split(_MARK)[1:]
    if len(after) != len(answers):
        raise ValueError("the chat template does not show every assistant turn once")
    return [text[: text.index(end) + len(end)] if end in text else end for text in after]


def _render(processor: Any, messages: Sequence[Message], *, generation_prompt: bool) -> str:
    """The chat template's text, with _MARK for the words of the assistant."""
    turns = [{"role": message.role, "content": _parts(message)} for message in messages]
    return processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=generation_prompt)


def _parts(message: Message) -> list[dict[str, Any]]:
    if message.role == "assistant":
        return [{"type": "text", "text": _MARK}]
    parts: list[dict[str, Any]] = []
    for number, text in enumerate(message.content.split(IMAGE_PLACEHOLDER)):
        if number:
            parts.append({"type": "image"})
        if text.strip():
            parts.append({"type": "text", "text": text.strip("\n")})
    return parts


def _images(processor: Any, example: Example) -> tuple[dict[str, Tensor], list[str]]:
    """The image tensors of an example, and for each image the text that stands for it."""
    if not example.images:
        return {}, []
    processed, replacements = processor._process_images([example.open_images()], return_tensors="pt")
    return dict(processed), replacements


def _expand(processor: Any, text: str, replacements: Any) -> str:
    """`text` with each image token repeated as often as the image has features."""
    first, *rest = text.split(processor.image_token)
    return first + "".join(next(replacements) + piece for piece in rest)


def _tokens(processor: Any, text: str) -> list[int]:
    return processor.tokenizer(text, add_special_tokens=False)["input_ids"]


def _same_tiles(parts: list[Tensor]) -> list[Tensor]:
    """Pixels of shape (images, tiles, channels, height, width), filled up with empty tiles to the largest number."""
    import torch

    if parts[0].dim() != 5:
        return parts
    most = max(part.shape[1] for part in parts)
    return [
        torch.cat([part, part.new_zeros(len(part), most - part.shape[1], *part.shape[2:])], dim=1) for part in parts
    ]
