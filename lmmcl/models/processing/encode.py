"""From dialogues to tensors: one chat template, in one place, for training and evaluation alike.

What the model reads before an answer is the same text in training and in generation (see `rendering.py`), and the tokens of prompt
and answer together are those of the template's own text (`tokenization.py`). What the texts of a dialogue spell becomes no
control token (`control_tokens.py`). What is read is read by the processor's own `__call__` (`splicing.py`), so every input that
it makes from tokens or images reaches the model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lmmcl.errors import UserError
from lmmcl.models.inputs.shown_images import settings_of, shown_images
from lmmcl.models.processing.control_tokens import SHORT, lately, once
from lmmcl.models.processing.padding import IGNORED, PER_TOKEN
from lmmcl.models.processing.rendering import Dialogue, Renderer, thinking
from lmmcl.models.processing.resizing import pin_resizing
from lmmcl.models.processing.splicing import SplicingTokenizer, is_begun, lend
from lmmcl.models.processing.tokenization import Tokens
from lmmcl.tasks.examples import IMAGE_PLACEHOLDER, Example, Message

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

# Processors are typed Any: which tokens and image tensors one has is known by its family alone.

_FROM_TOKENS = re.compile(
    r"\w*token_type_ids|cross_attention_mask|image_attention_mask|image_embeds_position_mask|bbox"
)
"""Inputs that say of each token what it is to the images: transformers raises no error where one is missing."""


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
    marks = sum(message.content.count(IMAGE_PLACEHOLDER) for message in example.messages if message.role != "assistant")
    if marks != len(example.images):
        raise UserError(f"example {example.id!r} has {marks} {IMAGE_PLACEHOLDER} for {len(example.images)} images")
    dialogue = dialogue_of(processor, example, with_answer=with_answer)
    images = shown_images(processor, example)
    images_alone = getattr(processor, "images_alone", None)
    shown = images_alone(images) if images_alone else None
    if shown is None or len(dialogue.text) > SHORT:
        return _encode_dialogue(processor, dialogue, example, images, with_answer)

    def encode_text() -> dict[str, Tensor | None]:
        encoded = _encode_dialogue(processor, dialogue, example, images, with_answer)
        return {name: None if name in shown else value for name, value in encoded.items()}

    # Pictures of one size have the same text around them, and small ones take a tenth of the time that the text takes.
    text = (dialogue.text, dialogue.answers, tuple(dialogue.spelled.items()), dialogue.ends, with_answer)
    return {**lately(processor, "texts", (text, inputs_of(processor)), encode_text), **shown}


def _encode_dialogue(
    processor: Any, dialogue: Dialogue, example: Example, images: list[Image], with_answer: bool
) -> dict[str, Tensor]:
    """The tokens of a dialogue and its images, as the processor reads them."""
    import torch

    pieces = list(dialogue.pieces())
    text = "".join(dialogue.mark if taught else piece for piece, taught in (pieces[:-1] if with_answer else pieces))
    if example.images:  # of the processor itself: what is lent is another one for each example
        once(processor, "resizing", lambda: pin_resizing(processor.image_processor))
    lent, spliced = lend(processor, dialogue, _beginning(processor), with_answer=with_answer)
    read = _read(lent, text, images)
    encoded = {
        name: value[0] if PER_TOKEN.fullmatch(name) or name.startswith("qformer_") else value
        for name, value in read.items()
    }
    if with_answer:
        encoded["labels"] = torch.tensor(_labels(spliced, encoded["input_ids"].tolist(), example))
    return encoded


def _read(processor: Any, text: str, images: list[Image]) -> dict[str, Tensor]:
    """What the processor makes of a text and its images, as tensors with a first dimension of one row."""
    import torch

    takes = inputs_of(processor)
    wants = {"return_mm_token_type_ids": True} if "mm_token_type_ids" in (takes or ()) else {}
    output = processor(text=[text], images=images or None, return_tensors="pt", **wants)
    dropped = {"labels", *getattr(processor, "input_names_dropped", ())}
    read = {name: value for name, value in output.items() if name not in dropped and (takes is None or name in takes)}
    if images and (missing := [name for name in takes or () if _FROM_TOKENS.fullmatch(name) and name not in read]):
        raise UserError(
            f"{type(processor).__name__} does not return {' and '.join(missing)}, without which the model silently "
            "misreads images"
        )
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


def dialogue_of(processor: Any, example: Example, *, with_answer: bool) -> Dialogue:
    """The text of an example; raises UserError that names it where the chat template or the tokenizer cannot write it.

    Short dialogues are remembered: rendering one takes longer than processing a small picture.
    """

    def write() -> Dialogue:
        return Renderer(processor, example.messages).dialogue(with_answer=with_answer)

    try:
        if sum(len(message.content) for message in example.messages) > SHORT:
            return write()
        settings = (thinking(processor), settings_of(processor).system, str(processor.chat_template))
        dialogue: Dialogue = lately(processor, "dialogues", (tuple(example.messages), with_answer, settings), write)
    except UserError as error:
        raise error.at(place=f"example {example.id!r}") from error
    return dialogue


def prompt_ids(processor: Any, example: Example) -> list[int]:
    """The tokens before the answer with one image token for each image, for engines that expand images by themselves."""
    dialogue = dialogue_of(processor, example, with_answer=False)
    ids = list(_leading(processor, dialogue.text, len(example.images)))
    return ids + [token for tokens, _ in _tokens(processor, dialogue) for token in tokens]


def answer_ids(processor: Any, question: Sequence[Message], answer: str) -> list[int]:
    """The tokens that an answer is taught with, the end of its turn included."""
    dialogue = Renderer(processor, (*question, Message("assistant", answer))).dialogue(with_answer=True)
    return _tokens(processor, dialogue)[-1][0]


def _tokens(processor: Any, dialogue: Dialogue) -> list[tuple[list[int], bool]]:
    return list(Tokens(processor, dialogue.spelled).of_pieces(dialogue.pieces(), ends=dialogue.ends))


def end_of_turn(processor: Any) -> int | None:
    """The token that an answer ends with, which may be another than the end of the text."""
    tokens = answer_ids(processor, [Message("user", "?")], "!")
    return tokens[-1] if tokens else None


def _leading(processor: Any, text: str, images: int) -> list[int]:
    """The tokens before the text: what marks its beginning, unless the template has written that."""
    if hasattr(processor, "leading_ids"):
        return processor.leading_ids(images)
    return [] if is_begun(processor.tokenizer, text) else _beginning(processor)


def _beginning(processor: Any) -> list[int]:
    """The token that the tokenizer marks the beginning of a text with, if it does."""
    tokenizer = processor.tokenizer
    begins: list[int] = once(processor, "begins", lambda: tokenizer("")["input_ids"][:1])
    return begins if begins == [tokenizer.bos_token_id] else []


def hold(processor: Any, names: Iterable[str]) -> None:
    """Hold a processor to its model: `names` are the inputs that the model's forward takes."""
    processor.model_takes = tuple(names)


def inputs_of(processor: Any) -> tuple[str, ...] | None:
    """The inputs that the model of a processor takes; None where that is not known."""
    return getattr(processor, "model_takes", None)
