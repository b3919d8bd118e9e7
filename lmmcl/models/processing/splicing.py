"""The tokenizer that a processor is lent for one example: it puts the answers between the texts.

A processor's own `__call__` knows what its model wants: how often an image token is repeated, which marks and numbers stand around
it, what is inserted before and after the text, and which inputs follow from the tokens. So that `__call__` reads an example.
It is given the text before the answer with a mark for each earlier answer; where it asks for tokens, it gets those of
the whole dialogue. Neither an answer nor what a question spells is seen by the code that replaces image tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from lmmcl.models.processing.control_tokens import once
from lmmcl.models.processing.rendering import Dialogue
from lmmcl.models.processing.tokenization import Tokens

if TYPE_CHECKING:
    from transformers import BatchEncoding


@dataclass(frozen=True)
class Piece:
    """A run of tokens: of `text` that a processor wrote, or of an answer that is taught."""

    tokens: list[int]
    taught: bool
    text: str


class SplicingTokenizer:
    """In all but its calls the tokenizer that it stands for. A call with a list of one text is the example's own text."""

    def __init__(self, processor: Any, dialogue: Dialogue, begins: Sequence[int], *, with_answer: bool) -> None:
        self._tokenizer, self._begins, self._dialogue = processor.tokenizer, begins, dialogue
        self._tokens = Tokens(processor, dialogue.spelled)
        self._answers = [text for text, taught in dialogue.pieces() if taught]
        self._last = self._answers.pop() if with_answer else None
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
        texts = sample.split(self._dialogue.mark)
        if len(texts) != len(self._answers) + 1:
            raise ValueError(f"the processor changed the number of answers in the text: {len(texts) - 1}")
        parts: list[tuple[str, bool]] = [(texts[0], False)]
        for answer, text in zip(self._answers, texts[1:], strict=True):
            parts += [(answer, True), (text, False)]
        parts += [] if self._last is None else [(self._last, True)]
        tokens = self._tokens.of_pieces(parts, ends=self._dialogue.ends)
        pieces = [Piece(ids, taught, text) for (text, taught), (ids, _) in zip(parts, tokens, strict=True)]
        if is_marked and not is_begun(self._tokenizer, sample):
            pieces[0] = Piece([*self._begins, *pieces[0].tokens], False, pieces[0].text)
        return pieces

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
        """The number of the token that begins at a character of the example's text, as an image token does."""
        at = tokens = 0
        text = ""
        for piece in self.pieces:
            length = len(self._dialogue.mark if piece.taught else piece.text)
            if at <= character < at + length and not piece.taught:
                before = self._tokens.of(text + piece.text[: character - at])
                return (
                    tokens + len(before) - (len(self._tokens.of(text)) if text else 0) + (0 if text else self._begun())
                )
            at += length
            tokens += len(piece.tokens)
            text += piece.text
        return None

    def _begun(self) -> int:
        """How many tokens stand before the text."""
        return len(self.pieces[0].tokens) - len(self._tokens.of(self.pieces[0].text))


class UnmarkedTokenizer:
    """A second tokenizer of a processor (a Q-Former's), which reads the text without the places of the answers."""

    def __init__(self, tokenizer: Any, dialogue: Dialogue) -> None:
        self._tokenizer, self._dialogue = tokenizer, dialogue

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, text: Any = None, *more: Any, **settings: Any) -> Any:
        plain = [self._plain(sample) for sample in text] if isinstance(text, list) else text
        return self._tokenizer(plain, *more, **settings)

    def _plain(self, sample: str) -> str:
        meant: dict[str, str | int | None] = {self._dialogue.mark: None, **self._dialogue.spelled}
        return sample.translate(str.maketrans(meant))


def lend(
    processor: Any, dialogue: Dialogue, begins: Sequence[int], *, with_answer: bool
) -> tuple[Any, SplicingTokenizer]:
    """A copy of the processor for one example, and its tokenizer.

    `begins` are the tokens that the tokenizer marks the beginning of a text with.
    """
    lent = copy.copy(processor)
    lent.tokenizer = SplicingTokenizer(processor, dialogue, begins, with_answer=with_answer)
    for name in once(processor, "tokenizers", lambda: _second_tokenizers(processor)):
        setattr(lent, name, UnmarkedTokenizer(getattr(processor, name), dialogue))
    return lent, lent.tokenizer


def _second_tokenizers(processor: Any) -> list[str]:
    names = type(processor).get_attributes()
    return [name for name in names if "tokenizer" in name and name != "tokenizer"]


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
