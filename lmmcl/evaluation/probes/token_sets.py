"""Which tokens of a vocabulary are numbers, option letters, yes and no, or parts of a time.

Sets are computed from the texts of single tokens, so they hold a word with and without its leading-space mark (Ġ, ▁)
and in any case, whatever the tokenizer.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Sequence
from typing import Any

from lmmcl.tasks.examples import Example
from lmmcl.tasks.metrics.parse_answer import NUMBER_WORDS
from lmmcl.tasks.probes import TokenClass

_UNITS = "|".join(word for word, value in NUMBER_WORDS.items() if 0 < value < 10)
_TENS = "|".join(word for word, value in NUMBER_WORDS.items() if value >= 20)
_WORDS = rf"(?:{_TENS})-(?:{_UNITS})|{'|'.join(NUMBER_WORDS)}|hundreds?|thousands?|millions?|billions?"
_DIGITS = r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]*\.[0-9]+|[0-9]+(?:st|nd|rd|th)?"
_TIME = r":|[0-9]{1,2}:(?:[0-9]{2})?|:[0-9]{2}|o['’]?clock|clock|hours?|minutes?|noon|midnight|[ap]\.m\.?|pm"

PATTERNS: dict[TokenClass, re.Pattern[str]] = {
    "number": re.compile(rf"{_DIGITS}|{_WORDS}", re.IGNORECASE | re.ASCII),
    "letter": re.compile("[A-Z]"),  # small ones are words and parts of words
    "yes_no": re.compile("yes|no", re.IGNORECASE),
    "time": re.compile(_TIME, re.IGNORECASE),
}
"""The whole text of a token, without spaces around it. Numbers: digits, ordinals (3rd), decimals, comma numbers, words."""

_TEXTS: weakref.WeakKeyDictionary[Any, list[str]] = weakref.WeakKeyDictionary()


def token_set(tokenizer: Any, kind: TokenClass) -> list[int]:
    """The numbers of all tokens of a class, ascending; special tokens are in none.

    A digit that continues a word (`##7`) is a number; a letter that does (`##A`) spells a word and is not an option.
    """
    special = set(tokenizer.all_special_ids)
    prefix = _inner_prefix(tokenizer)
    ids = []
    for number, text in enumerate(_texts(tokenizer)):
        inner = bool(prefix) and text.startswith(prefix)
        bare = text[len(prefix) :] if inner else text.strip()
        if number not in special and PATTERNS[kind].fullmatch(bare) and (not inner or bare.isdigit()):
            ids.append(number)
    return ids


def _texts(tokenizer: Any) -> list[str]:
    """The text of each token by number, decoded alone."""
    if tokenizer not in _TEXTS:
        alone = [[number] for number in range(len(tokenizer))]
        _TEXTS[tokenizer] = tokenizer.batch_decode(alone, clean_up_tokenization_spaces=False)
    return _TEXTS[tokenizer]


def _inner_prefix(tokenizer: Any) -> str:
    """What marks a token inside a word (WordPiece: `##`); empty where tokens at the beginning are marked instead."""
    if not getattr(tokenizer, "is_fast", False):
        return ""
    return getattr(tokenizer.backend_tokenizer.model, "continuing_subword_prefix", None) or ""


def reference_tokens(tokenizer: Any, examples: Sequence[Example]) -> list[set[int]]:
    """The tokens of each example's references, written at the beginning of an answer and after a space."""
    rows = []
    for example in examples:
        texts = [form for reference in example.references for form in (reference, f" {reference}")]
        rows.append({token for text in texts for token in tokenizer(text, add_special_tokens=False)["input_ids"]})
    return rows
