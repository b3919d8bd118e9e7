"""The text normalisation of the VQA challenges (EvalAI), shared by both sides of a comparison.

Lower case, number words to ten as digits, no articles, contractions with their apostrophe, punctuation dropped or
turned into a space. Our own code for the rules of the official evaluation script.
"""

from __future__ import annotations

import re

from lmmcl.tasks.metrics.parse_answer import NUMBER_WORDS, plain_form

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGITS = {word: str(value) for word, value in NUMBER_WORDS.items() if value <= 10} | {"none": "0"}
_CONTRACTIONS = {
    word.replace("'", ""): word
    for word in (
        "ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's "
        "I'm i've isn't it'd it'll ma'am might've mightn't must've mustn't needn't o'clock oughtn't shan't she's "
        "should've shouldn't somebody's someone's something's that's there'd there's they'd they'll they're "
        "they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's who'd who'll who's who've why's "
        "won't would've wouldn't y'all you'd you'll you're you've"
    )
    .casefold()
    .split()
}


def vqa_normalise(text: str) -> str:
    """The form in which two VQA answers are compared."""
    flat = " ".join(plain_form(text).casefold().replace("’", "'").split())
    words = _strip_punctuation(flat).split()
    digits = [_DIGITS.get(word, word) for word in words]
    return " ".join(_CONTRACTIONS.get(word, word) for word in digits if word not in ("a", "an", "the"))


def _strip_punctuation(text: str) -> str:
    comma_number = re.search(r"(?<=\d),(?=\d)", text) is not None
    stripped = text
    for mark in _PUNCTUATION:
        at_a_space = f"{mark} " in text or f" {mark}" in text
        stripped = stripped.replace(mark, "" if at_a_space or comma_number else " ")
    return re.sub(r"\.(?!\d)", "", stripped)
