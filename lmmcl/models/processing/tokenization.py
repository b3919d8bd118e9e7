"""The tokens of a dialogue's pieces: those that each piece has in the whole text, cut where an answer begins.

A tokenizer reads a text otherwise at its beginning than inside (SentencePiece adds a space), so a piece is never tokenised by
itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from lmmcl.models.processing.control_tokens import SHORT, lately, once, plain_reader

_ANCHORS = ("a", ".", "\n")
"""What a text may begin with so that the rest of it is tokenised as inside a text."""


class Tokens:
    """The tokens of texts in which private characters stand for the control tokens that are only `spelled`."""

    def __init__(self, processor: Any, spelled: Mapping[str, str]) -> None:
        self.processor, self.tokenizer, self.spelled = processor, processor.tokenizer, spelled
        self._stands_in = re.compile(f"([{''.join(spelled)}])") if spelled else None

    def of_pieces(self, pieces: Iterable[tuple[str, bool]], *, ends: bool) -> Iterator[tuple[list[int], bool]]:
        """The tokens of each piece of a text, with whether it is an answer; unless `ends`, each answer is ended by the text's end.

        A token that would hold the end of one piece and the beginning of the next is cut: generation begins after a prompt's own
        tokens.
        """
        end = [] if ends else [self.tokenizer.eos_token_id]
        text, before = "", list[int]()
        for piece, taught in pieces:
            text += piece
            whole = self.of(text)
            fits = whole[: len(before)] == before
            tokens = whole[len(before) :] if fits else self._inside(piece)
            yield (tokens + end if taught else tokens), taught
            before = whole
            if taught and ends:  # what follows a special token is tokenised by itself
                before = whole[-1:]
                text = self.tokenizer.convert_ids_to_tokens(before[0])

    def of(self, text: str) -> list[int]:
        """The tokens of a text."""
        if self._stands_in and self._stands_in.search(text):
            reader = plain_reader(self.processor)
            assert reader is not None, "a dialogue that it cannot read is refused"
            parts = self._stands_in.split(text)
            return reader.ids((self.spelled.get(part, part), bool(number % 2)) for number, part in enumerate(parts))
        return self._shortened(text)

    def _inside(self, text: str) -> list[int]:
        for anchor in (*_ANCHORS, self.tokenizer.eos_token):
            begun, whole = self.of(anchor), self.of(anchor + text)
            if whole[: len(begun)] == begun:
                return whole[len(begun) :]
        return self.of(text)

    def _shortened(self, text: str) -> list[int]:
        """The tokens of a text in which a photograph's thousands of image tokens are read as one."""
        runs: list[int] = []
        repeated: re.Pattern[str] = once(self.processor, "repeated", lambda: _repeated(self.processor))

        def shorten(match: re.Match[str]) -> str:
            runs.append(len(match[0]) // len(match[1]))
            return match[1]

        ids = self._read(repeated.sub(shorten, text))
        if all(run == 1 for run in runs):
            return list(ids)
        images: frozenset[int] = once(
            self.processor, "image tokens", lambda: frozenset(_image_tokens(self.processor).values())
        )
        pending = iter(runs)
        return [token for token in ids for _ in range(next(pending) if token in images else 1)]

    def _read(self, text: str) -> Sequence[int]:
        """The tokenizer's tokens of a text; those of a short one are remembered."""

        def read() -> tuple[int, ...]:
            return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

        tokens: tuple[int, ...] = lately(self.processor, "tokens", text, read) if len(text) <= SHORT else read()
        return tokens


def _image_tokens(processor: Any) -> dict[str, int]:
    """The tokens that stand for images, with their numbers."""
    tokenizer = processor.tokenizer
    named = (
        [tokenizer.convert_tokens_to_ids(str(processor.image_token))] if getattr(processor, "image_token", None) else []
    )
    numbers = {*(getattr(processor, "image_token_ids", None) or []), *named} - {None, tokenizer.unk_token_id}
    return {tokenizer.convert_ids_to_tokens(number): number for number in numbers}


def _repeated(processor: Any) -> re.Pattern[str]:
    """Image tokens that follow one another."""
    tokens = sorted(_image_tokens(processor), key=lambda token: (-len(token), token))
    return re.compile(f"({'|'.join(map(re.escape, tokens))})(?:\\1)*" if tokens else "(?!)()")
