"""From dialogues to tensors: one chat template, in one place, for training and evaluation alike.

What the model reads before an answer is the same text in training and in generation: the template is rendered with a
private mark in place of each assistant turn and cut there, and the answer begins after the template's own generation
prompt. Answers are tokenised apart from the prompt, as generation does. Works for every processor that follows
transformers' `ProcessorMixin`; one that puts tokens before the text, or feeds the prompt to another part of the model, says so
by `leading_ids(images)` and `extra_inputs(prompt)` (see `processors.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from lmmcl.errors import UserError
from lmmcl.tasks.examples import IMAGE_PLACEHOLDER, Example, Message

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100
"""The label of a token that is not taught (what torch's cross entropy ignores)."""

# Processors are typed Any: which tokens and image tensors one has is known by its family alone.
_MARK = "\ue000"  # a private-use character: no text of a user contains it
_FILL = {"attention_mask": 0, "labels": IGNORED, "mm_token_type_ids": 0, "token_type_ids": 0}
_PER_TOKEN = {"input_ids", *_FILL}
_KNOWN: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()  # of each processor, see _once
_TILED = {"pixel_values": 5, "pixel_attention_mask": 4}  # dimensions of (examples or images, tiles, …)


def encode(processor: Any, example: Example, *, with_answer: bool, max_tokens: int | None = None) -> dict[str, Tensor]:
    """One example as tensors: `input_ids`, `attention_mask` (and `labels`) of shape (tokens,), and its image tensors.

    With the answer, `labels` are IGNORED except on assistant turns including the token that ends the turn. Without, the
    last assistant message is left out and the generation prompt ends the tokens.

    With `max_tokens` a longer dialogue loses its last turns (with their images), then the end of what is left of its answer; a
    question and its images are never cut.

    Raises UserError when placeholders and images are not equally many, or more than the model can see, and when a first
    question alone is longer than `max_tokens`.
    """
    encoded = _encode(processor, example, with_answer)
    while max_tokens is not None and len(encoded["input_ids"]) > max_tokens:
        shorter = _without_last_exchange(example)
        if shorter is None:
            return _cut_answer(encoded, max_tokens, example)
        example = shorter
        encoded = _encode(processor, example, with_answer)
    return encoded


def _without_last_exchange(example: Example) -> Example | None:
    """The dialogue up to the answer before the last; None when there is none."""
    answers = [at for at, message in enumerate(example.messages) if message.role == "assistant"]
    if len(answers) < 2:
        return None
    messages = example.messages[: answers[-2] + 1]
    shown = sum(message.content.count(IMAGE_PLACEHOLDER) for message in messages)
    return replace(example, messages=messages, images=example.images[:shown])


def _cut_answer(encoded: dict[str, Tensor], max_tokens: int, example: Example) -> dict[str, Tensor]:
    taught = (encoded["labels"] != IGNORED).nonzero().flatten().tolist() if "labels" in encoded else []
    asked = taught[0] if taught else len(encoded["input_ids"])
    if asked >= max_tokens:
        raise UserError(
            f"example {example.id!r}: its question and images alone take {asked} tokens, and max_length is {max_tokens}; "
            "allow more, or leave the row out"
        )
    return {name: tensor[:max_tokens] if name in _PER_TOKEN else tensor for name, tensor in encoded.items()}


def _encode(processor: Any, example: Example, with_answer: bool) -> dict[str, Tensor]:
    import torch

    marks = sum(message.content.count(IMAGE_PLACEHOLDER) for message in example.messages)
    if marks != len(example.images):
        raise UserError(f"example {example.id!r} has {marks} {IMAGE_PLACEHOLDER} for {len(example.images)} images")
    tensors, expansions = _images(processor, example)
    pending = iter(expansions)
    segments = _segments(processor, example.messages, with_answer=with_answer)
    ids = _leading(processor, segments[0][0], len(example.images))
    labels = [IGNORED] * len(ids)
    for text, taught in segments:
        # Only the template writes image tokens: an answer that spells one must not consume an image.
        tokens = _tokens(processor, text if taught else _expand(processor, text, pending))
        ids += tokens
        labels += tokens if taught else [IGNORED] * len(tokens)
    encoded = {"input_ids": torch.tensor(ids), "attention_mask": torch.ones(len(ids), dtype=torch.long), **tensors}
    if getattr(processor, "return_mm_token_type_ids", False):
        name = "mm_token_type_ids" if "mm_token_type_ids" in processor.model_input_names else "token_type_ids"
        encoded[name] = torch.isin(encoded["input_ids"], torch.tensor(processor.image_token_ids)).long()
    if hasattr(processor, "extra_inputs"):
        prompt = "".join(text for text, taught in segments if not taught)
        encoded |= {key: torch.tensor(value) for key, value in processor.extra_inputs(prompt).items()}
    if with_answer:
        encoded["labels"] = torch.tensor(labels)
    return encoded


def prompt_ids(processor: Any, example: Example) -> list[int]:
    """The tokens before the answer with one image token for each image, for engines that expand images by themselves."""
    segments = _segments(processor, example.messages, with_answer=False)
    ids = list(_leading(processor, segments[0][0], len(example.images)))
    return ids + [token for text, _ in segments for token in _tokens(processor, text)]


def pad(processor: Any, encoded: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """A batch for `model(**batch)` or `model.generate(**batch)`: tokens padded on the left, images concatenated.

    What a Q-Former reads is padded on the right, as the encoder that it is.

    Shapes: tokens (batch, longest); image tensors (all images or patches of the batch, …). Raises ValueError for an
    empty list.
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence

    if not encoded:
        raise ValueError("nothing to pad")
    fills = {"input_ids": processor.tokenizer.pad_token_id, **_FILL}
    batch: dict[str, Tensor] = {}
    for key in dict.fromkeys(key for one in encoded for key in one):
        parts = [one[key] for one in encoded if key in one]
        if key in fills:
            batch[key] = pad_sequence(parts, batch_first=True, padding_value=fills[key], padding_side="left")
        elif key.startswith("qformer_"):
            fill = processor.qformer_tokenizer.pad_token_id if key == "qformer_input_ids" else 0
            batch[key] = pad_sequence(parts, batch_first=True, padding_value=fill)
        else:
            batch[key] = torch.cat(_same_tiles(parts, _TILED.get(key)))
    return batch


def end_of_turn(processor: Any) -> int | None:
    """The token that the chat template ends an answer with, which may be another than the end of the text."""
    messages = (Message("user", "?"), Message("assistant", "!"))
    tokens = _tokens(processor, _end_of_turns(processor, messages, ["!"])[0].strip())
    return tokens[-1] if tokens else None


def _once(processor: Any, what: str, find: Callable[[], Any]) -> Any:
    """What is the same for every example that a processor encodes, and takes it long to say."""
    known = _KNOWN.setdefault(processor, {})
    if what not in known:
        known[what] = find()
    return known[what]


def _leading(processor: Any, text: str, images: int) -> list[int]:
    """The tokens before the text: what marks its beginning, unless the template has written that."""
    if hasattr(processor, "leading_ids"):
        return processor.leading_ids(images)
    tokenizer = processor.tokenizer
    begins: list[int] = _once(processor, "begins", lambda: tokenizer("")["input_ids"][:1])
    written = tokenizer.bos_token is not None and text.startswith(tokenizer.bos_token)
    return [*begins] if begins == [tokenizer.bos_token_id] and not written else []


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
    after = _render(processor, messages, generation_prompt=False).split(_MARK)[1:]
    if len(after) != len(answers):
        raise ValueError("the chat template does not show every assistant turn once")
    return [_end_of_turn(processor, text) for text in after]


def _end_of_turn(processor: Any, after: str) -> str:
    """The special token at the beginning of `after` with the space before it; the end of the text when there is none."""
    tokenizer = processor.tokenizer
    specials: list[str] = _once(
        processor, "specials", lambda: [str(each) for each in tokenizer.added_tokens_decoder.values() if each.special]
    )
    begun = after.lstrip()
    found = max((token for token in specials if begun.startswith(token)), key=len, default="")
    if not found or found == processor.image_token:
        return tokenizer.eos_token
    return after[: after.index(found) + len(found)]


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
    settings = _once(processor, "settings", lambda: processor._merge_kwargs(return_tensors="pt")["images_kwargs"])
    processed, replacements = processor._process_images([example.open_images()], **settings)
    dropped = getattr(processor, "input_names_dropped", processor.unused_input_names)
    return {key: value for key, value in processed.items() if key not in dropped}, replacements


def _expand(processor: Any, text: str, replacements: Any) -> str:
    """`text` with each image token repeated as often as the image has features."""
    first, *rest = text.split(processor.image_token)
    return first + "".join(next(replacements) + piece for piece in rest)


def _tokens(processor: Any, text: str) -> list[int]:
    return processor.tokenizer(text, add_special_tokens=False)["input_ids"]


def _same_tiles(parts: list[Tensor], dimensions: int | None) -> list[Tensor]:
    """Tensors of shape (images, tiles, …), filled up with empty tiles to the largest number."""
    import torch

    if parts[0].dim() != dimensions:
        return parts
    most = max(part.shape[1] for part in parts)
    return [
        torch.cat([part, part.new_zeros(len(part), most - part.shape[1], *part.shape[2:])], dim=1) for part in parts
    ]
