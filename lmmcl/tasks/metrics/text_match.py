"""Metrics on texts that are neither numbers nor letters alone: containment, and letters where options are named."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lmmcl.tasks.examples import Example
from lmmcl.tasks.metrics.parse_answer import (
    normalise,
    number_words,
    one_line,
    plain_form,
    stated_letter,
    stated_number,
)

FORMULAS = "HME100k"
"""The part of OCRBench that is formulas: spaces do not count there, and case does."""


def contains(prediction: str, example: Example) -> float:
    """1 if a reference occurs in the answer as whole words, case and punctuation at the edges apart.

    A reference of one letter (an option) must be the whole answer: "a" as a word is in most sentences.
    """
    answer = normalise(prediction)
    return float(any(_holds(normalise(reference), answer) for reference in example.references))


def _holds(wanted: str, answer: str) -> bool:
    return answer == wanted if re.fullmatch("[a-z]", wanted) else _word(wanted, answer)


LISTED = "which states"
"""Questions of MLLM-CL's science domain whose answer is a list."""


def science(prediction: str, example: Example) -> float:
    """The science domain of MLLM-CL, as its own `eval_sci.py` scores it (Zhao et al. 2025).

    An option's letter must be the whole answer; a question for "Which states" scores the share of the listed states that the
    answer names; anything else is right when it holds the reference.
    """
    question = example.messages[-2].content.casefold() if len(example.messages) > 1 else ""
    if LISTED not in question:
        return contains(prediction, example)
    answer = normalise(prediction)
    return max(
        _share([normalise(item) for item in plain_form(reference).split(",")], answer)
        for reference in example.references
    )


def _share(wanted: Sequence[str], answer: str) -> float:
    listed = [item for item in wanted if item]
    return sum(_word(item, answer) for item in listed) / len(listed) if listed else 0.0


def _word(wanted: str, answer: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", answer) is not None


def matching_words(prediction: str, example: Example) -> float:
    """PathVQA as LMM-CL scores it: of the words of the answer, the share that is in the reference, each counted once.

    Words are runs of letters, case apart. A reference without any ("2") must be the whole answer.
    """
    return max(_words_shared(prediction, reference) for reference in example.references)


def _words_shared(prediction: str, reference: str) -> float:
    answered, wanted = _plain_words(prediction), _plain_words(reference)
    if not wanted:
        return float(normalise(prediction) == normalise(reference))
    return len({*wanted} & {*answered}) / len(answered) if answered else 0.0


def _plain_words(text: str) -> list[str]:
    return re.sub(r"[^a-z\s]", "", plain_form(text).casefold()).split()


def ocr_contains(prediction: str, example: Example) -> float:
    """OCRBench (Liu et al. 2023): 1 if a reference occurs anywhere in the answer, case apart.

    For handwritten formulas (`dataset` is HME100k) spaces do not count and case does. lmms-eval: runs of spaces count.
    """
    if example.metadata.get("dataset") == FORMULAS:
        answer = "".join(plain_form(prediction).split())
        return float(any("".join(plain_form(reference).split()) in answer for reference in example.references))
    answer = one_line(prediction)
    return float(any(one_line(reference) in answer for reference in example.references))


def letter_or_text(prediction: str, example: Example) -> float:
    """1 for the right option letter where the reference is one, else for the same text or the same number.

    For benchmarks that mix lettered and open questions (RealWorldQA, MMMU). A reference is a letter when it is one capital.
    lmms-eval: letters as for `letter`; open answers must be the same text, without number words, articles or final marks.
    """
    return float(any(_same(prediction, reference) for reference in example.references))


def _same(prediction: str, reference: str) -> bool:
    wanted = plain_form(reference).strip()
    if re.fullmatch(r"[A-Z]", wanted):
        return stated_letter(prediction) == wanted
    answer, target = normalise(prediction), normalise(wanted)
    if answer == target:
        return True
    number = stated_number(target)
    plain = number_words(target) is not None or re.fullmatch(r"[-−]?[\d,]*\.?\d+", target) is not None
    return plain and number is not None and stated_number(prediction) == number
