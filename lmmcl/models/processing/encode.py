"""From dialogues to tensors: one chat template, in one place, for training and evaluation alike.

What the model reads before an answer is the same text in training and in generation: the template is rendered with a
private mark in place of each assistant turn and cut there, and the answer begins after the template's own generation
prompt. Answers are tokenised apart from the prompt, as generation does. What is read is read by the processor's own `__call__`
(see `splicing.py`), so every input that it makes from tokens or images reaches the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from lmmcl.errors import UserError
from lmmcl.models.processing.padding import IGNORED, PER_TOKEN
from lmmcl.models.processing.splicing import ANSWER, SplicingTokenizer, is_begun, lend
from lmmcl.tasks.examples import IMAGE_PLACEHOLDER, Example, Message

if TYPE_CHECKING:
    from torch import Tensor

# Processors are typed Any: which tokens and image tensors one has is known by its family alone.
_KNOWN: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()  # of each processor, see _once


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
    return {name: tensor[:max_tokens] if PER_TOKEN.fullmatch(name) else tensor for name, tensor in encoded.items()}


def _encode(processor: Any, example: Example, with_answer: bool) -> dict[str, Tensor]:
    import torch

    marks = sum(message.content.count(IMAGE_PLACEHOLDER) for message in example.messages)
    if marks != len(example.images):
        raise UserError(f"example {example.id!r} has {marks} {IMAGE_PLACEHOLDER} for {len(example.images)} images")
    segments = _segments(processor, example.messages, with_answer=with_answer)
    last = _tokens(processor, segments.pop()[0]) if with_answer else None
    answers = [_tokens(processor, text) for text, taught in segments if taught]
    text = "".join(ANSWER if taught else piece for piece, taught in segments)
    lent, spliced = lend(processor, answers, last, _beginning(processor))
    read = _read(lent, text, example)
    encoded = {
        name: value[0] if PER_TOKEN.fullmatch(name) or name.startswith("qformer_") else value
        for name, value in read.items()
    }
    if with_answer:
        encoded["labels"] = torch.tensor(_labels(spliced, encoded["input_ids"].tolist(), example))
    return encoded


def _read(processor: Any, text: str, example: Example) -> dict[str, Tensor]:
    """What the processor makes of a text and its images, as tensors with a first dimension of one row."""
    import torch

    takes = inputs_of(processor)
    wants = {"return_mm_token_type_ids": True} if "mm_token_type_ids" in (takes or ()) else {}
    images = list(example.open_images()) or None
    output = processor(text=[text], images=images, return_tensors="pt", **wants)
    dropped = {"labels", *getattr(processor, "input_names_dropped", ())}
    read = {name: value for name, value in output.items() if name not in dropped and (takes is None or name in takes)}
    if unlike := [name for name, value in read.items() if not isinstance(value, torch.Tensor)]:
        raise UserError(f"{type(processor).__name__} returns {', '.join(unlike)} as lists, not as tensors")
    return read


def _labels(spliced: SplicingTokenizer, ids: list[int], example: Example) -> list[int]:
    """For each token itself where it is taught, else IGNORED; what a processor puts before the text is not taught."""
    own = [token for piece in spliced.pieces for token in piece.tokens]
    if ids[len(ids) - len(own) :] != own:
        raise UserError(f"example {example.id!r}: the processor changed the tokens, so answers cannot be found in them")
    labels = [IGNORED] * (len(ids) - len(own))
    for piece in spliced.pieces:
        labels += piece.tokens if piece.taught else [IGNORED] * len(piece.tokens)
    return labels


def prompt_ids(processor: Any, example: Example) -> list[int]:
    """The tokens before the answer with one image token for each image, for engines that expand images by themselves."""
    segments = _segments(processor, example.messages, with_answer=False)
    ids = list(_leading(processor, segments[0][0], len(example.images)))
    return ids + [token for text, _ in segments for token in _tokens(processor, text)]


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
    return [] if is_begun(processor.tokenizer, text) else _beginning(processor)


def _beginning(processor: Any) -> list[int]:
    """The token that the tokenizer marks the beginning of a text with, if it does."""
    tokenizer = processor.tokenizer
    begins: list[int] = _once(processor, "begins", lambda: tokenizer("")["input_ids"][:1])
    return begins if begins == [tokenizer.bos_token_id] else []


def _segments(processor: Any, messages: Sequence[Message], *, with_answer: bool) -> list[tuple[str, bool]]:
    """The rendered dialogue in pieces: (text, whether it is taught), in order."""
    answers = [message.content for message in messages if message.role == "assistant"]
    prompt = _render(processor, messages[:-1], generation_prompt=True).split(ANSWER)
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
    after = _render(processor, messages, generation_prompt=False).split(ANSWER)[1:]
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
    """The chat template's text, with ANSWER for the words of the assistant."""
    turns = [{"role": message.role, "content": _parts(message)} for message in messages]
    return processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=generation_prompt)


def _parts(message: Message) -> list[dict[str, Any]]:
    if message.role == "assistant":
        return [{"type": "text", "text": ANSWER}]
    parts: list[dict[str, Any]] = []
    for number, text in enumerate(message.content.split(IMAGE_PLACEHOLDER)):
        if number:
            parts.append({"type": "image"})
        if text.strip():
            parts.append({"type": "text", "text": text.strip("\n")})
    return parts


def _tokens(processor: Any, text: str) -> list[int]:
    return processor.tokenizer(text, add_special_tokens=False)["input_ids"]


def hold(processor: Any, names: Iterable[str]) -> None:
    """Hold a processor to its model: `names` are the inputs that the model's forward takes."""
    processor.model_takes = tuple(names)


def inputs_of(processor: Any) -> tuple[str, ...] | None:
    """The inputs that the model of a processor takes; None where that is not known."""
    return getattr(processor, "model_takes", None)
