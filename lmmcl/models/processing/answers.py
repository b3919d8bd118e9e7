"""The words of an answer: what a model's tokens say, as its references spell it.

Tokens that end, pad or open anything are left out. Marks that the tokenizer calls special and the model says as words (such as
`<|box_start|>`) are kept: a reference that holds them would otherwise never be matched. A thought does not belong to the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lmmcl.models.processing.control_tokens import once, special_tokens
from lmmcl.models.processing.rendering import THOUGHTS, opened_by_prompt, tokens_of


def answer_text(processor: Any, ids: Sequence[int]) -> str:
    """What the generated tokens say, without outer spaces."""
    control, marks = once(processor, "silent", lambda: _silent(processor))
    tokens = [token for token in ids if token not in control]
    tokenizer = processor.tokenizer
    if marks.isdisjoint(tokens):
        text = tokenizer.decode(tokens, skip_special_tokens=True)
    elif once(processor, "spaced", lambda: _keeps_spaces(processor, next(iter(marks)))):
        text = tokenizer.decode(tokens, skip_special_tokens=False)
    else:
        text = "".join(_runs(tokenizer, tokens, marks))
    return without_thought(text, is_open=opened_by_prompt(processor)).strip()


def control_tokens(processor: Any) -> frozenset[int]:
    """The tokens that end, pad or open anything, or stand for an image: by their numbers."""
    return once(processor, "silent", lambda: _silent(processor))[0]


def _silent(processor: Any) -> tuple[frozenset[int], frozenset[int]]:
    """The control tokens, and the other special tokens, by their numbers."""
    special = special_tokens(processor)
    control = frozenset(special[token] for token in tokens_of(processor).always if token in special)
    return control, frozenset(special.values()) - control


def _keeps_spaces(processor: Any, mark: int) -> bool:
    """Whether a space beside a mark is a token of its own or a part of one; a tokenizer of words has none."""
    name = processor.tokenizer.convert_ids_to_tokens(mark)
    near, apart = (
        processor.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (f"{name}a", f"{name} a")
    )
    return near != apart


def _runs(tokenizer: Any, ids: Sequence[int], marks: frozenset[int]) -> list[str]:
    """The words between marks, and the marks, which no space is known of."""
    texts: list[str] = []
    run: list[int] = []
    for token in [*ids, None]:
        if token is not None and token not in marks:
            run.append(token)
            continue
        texts += [tokenizer.decode(run, skip_special_tokens=True)] if run else []
        texts += [] if token is None else [tokenizer.convert_ids_to_tokens(token)]
        run = []
    return texts


def without_thought(text: str, *, is_open: bool) -> str:
    """What follows the thought that a text begins with, or that `is_open` from the prompt; empty for a thought without end."""
    for begin, close in THOUGHTS:
        if text.lstrip().startswith(begin) or (is_open and close in text):
            return text.rpartition(close)[2] if close in text else ""
    return "" if is_open else text
