"""The tokenizer that a processor is lent for one example: it puts the answers between the texts, tokenised apart.

A processor's own `__call__` knows what its model wants: how often an image token is repeated, which marks and numbers stand around
it, what is inserted before and after the text, and which inputs follow from the tokens. So that `__call__` reads an example.
It is given the text before the answer with ANSWER for each earlier assistant turn; where it asks for tokens, it gets those of
the texts with the answers' tokens in their places. An answer is never seen by the code that replaces image tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import BatchEncoding

ANSWER = "\ue000"  # a private-use character: no text of a user contains it


@dataclass(frozen=True)
class Piece:
    """A run of tokens: of `text` that a processor wrote, or of an answer that is taught."""

    tokens: list[int]
    taught: bool
    text: str = ANSWER


class SplicingTokenizer:
    """In all but its calls the tokenizer that it stands for. A call with a list of one text is the example's own text."""

    def __init__(
        self, tokenizer: Any, answers: Sequence[list[int]], last: list[int] | None, begins: Sequence[int]
    ) -> None:
        self._tokenizer, self._answers, self._last, self._begins = tokenizer, answers, last, begins
        self.pieces: list[Piece] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __len__(self) -> int:
        return len(self._tokenizer)

    def __call__(self, text: Any = None, *more: Any, **settings: Any) -> Any:
        if not isinstance(text, list):
            return self._tokenizer(text, *more, **settings)
        (sample,) = text
        self.pieces = self._spliced(sample, settings.get("add_special_tokens", True))
        return self._encoding(settings)

    def _spliced(self, sample: str, is_marked: bool) -> list[Piece]:
        texts = sample.split(ANSWER)
        if len(texts) != len(self._answers) + 1:
            raise ValueError(f"the processor changed the number of answers in the text: {len(texts) - 1}")
        pieces: list[Piece] = []
        for number, part in enumerate(texts):
            begins = self._begins if is_marked and not number and not is_begun(self._tokenizer, part) else []
            tokens = self._tokenizer(part, add_special_tokens=False)["input_ids"]
            pieces.append(Piece([*begins, *tokens], False, part))
            if number < len(self._answers):
                pieces.append(Piece(self._answers[number], True))
        return pieces if self._last is None else [*pieces, Piece(self._last, True)]

    def _encoding(self, settings: dict[str, Any]) -> BatchEncoding:
        ids = [token for piece in self.pieces for token in piece.tokens]
        data = {"input_ids": [ids], "attention_mask": [[1] * len(ids)]}
        if settings.get("return_token_type_ids"):
            data["token_type_ids"] = [self._second_texts()]
        return _spliced_encoding()(self, data, settings.get("return_tensors"))

    def _second_texts(self) -> list[int]:
        """0 for the first text and 1 for all that follows it, as tokenizers number a text and its pair."""
        first, *rest = (len(piece.tokens) for piece in self.pieces)
        return [0] * first + [1] * sum(rest)

    def token_at(self, character: int) -> int | None:
        """The number of the token that holds a character of the example's text."""
        at = tokens = 0
        for piece in self.pieces:
            if at <= character < at + len(piece.text) and not piece.taught:
                own = self._tokenizer(piece.text, add_special_tokens=False)
                token = own.char_to_token(0, character - at)
                return None if token is None else tokens + len(piece.tokens) - len(own["input_ids"]) + token
            at += len(piece.text)
            tokens += len(piece.tokens)
        return None


class UnmarkedTokenizer:
    """A second tokenizer of a processor (a Q-Former's), which reads the text without the places of the answers."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, text: Any = None, *more: Any, **settings: Any) -> Any:
        plain = [sample.replace(ANSWER, "") for sample in text] if isinstance(text, list) else text
        return self._tokenizer(plain, *more, **settings)


def lend(
    processor: Any, answers: Sequence[list[int]], last: list[int] | None, begins: Sequence[int]
) -> tuple[Any, SplicingTokenizer]:
    """A copy of the processor for one example, and its tokenizer.

    `last` are the tokens that are taught after the text, if any; `begins` those that the tokenizer marks its beginning with.
    """
    lent = copy.copy(processor)
    lent.tokenizer = SplicingTokenizer(processor.tokenizer, answers, last, begins)
    for name in type(processor).get_attributes():
        if "tokenizer" in name and name != "tokenizer":
            setattr(lent, name, UnmarkedTokenizer(getattr(processor, name)))
    return lent, lent.tokenizer


def is_begun(tokenizer: Any, text: str) -> bool:
    """Whether what marks the beginning of a text is written in it."""
    return tokenizer.bos_token is not None and text.startswith(tokenizer.bos_token)


@cache
def _spliced_encoding() -> Any:
    from transformers import BatchEncoding

    class SplicedEncoding(BatchEncoding):
        """What a tokenizer returns; some processors ask it for the tokens of the characters that they inserted."""

        def __init__(self, tokenizer: SplicingTokenizer, data: dict[str, Any], tensor_type: Any) -> None:
            super().__init__(data, tensor_type=tensor_type)
            self.spliced = tokenizer

        def char_to_token(
            self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
        ) -> Any:
            return self.spliced.token_at(batch_or_char_index if char_index is None else char_index)

    return SplicedEncoding
