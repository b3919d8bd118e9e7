"""CIDEr-D against values worked out by hand, and the metrics on texts that mix letters, words and containment."""

from __future__ import annotations

import math

import pytest

from lmmcl.tasks.examples import ask
from lmmcl.tasks.metrics.cider import all_cider, corpus_weights, words
from lmmcl.tasks.metrics.metric import get_metric


def captioned(id: str, *captions: str):
    return ask(id, "Caption?", captions[0], answers=captions)


DOG, CAT = captioned("1", "a dog runs"), captioned("2", "a cat sits")


def test_words_are_lower_case_without_punctuation() -> None:
    assert words("A man's dog, running - fast!") == ["a", "man's", "dog", "running", "fast"]


def test_an_n_gram_that_every_image_has_weighs_nothing() -> None:
    weights = corpus_weights([DOG, CAT])
    assert weights.of(("a",)) == 0
    assert weights.of(("dog",)) == weights.of(("zebra",)) == pytest.approx(math.log(2))


def test_the_reference_itself_by_hand() -> None:
    # three words have n-grams of orders 1, 2 and 3 with cosine 1, and none of order 4: 10 · 3/4
    assert all_cider([("a dog runs", DOG), ("a cat sits", CAT)]) == pytest.approx([7.5, 7.5])


def test_one_right_word_by_hand() -> None:
    # order 1: "a" weighs nothing; said (dog, sits) against (dog, runs): cosine 1/2. order 2: ("a dog") of two each: 1/2.
    # order 3: none in common. 10 · (1/2 + 1/2) / 4
    assert all_cider([("a dog sits", DOG), ("a cat sits", CAT)])[0] == pytest.approx(10 * (0.5 + 0.5) / 4)


def test_another_length_and_repetition_are_punished_by_hand() -> None:
    # "dog dog dog dog": order 1 clipped: min(4w, w)·w / (4w · √2 w) = 1 / (4√2); one word more: e^(−1/72)
    expected = 10 * math.exp(-1 / 72) * (1 / (4 * math.sqrt(2))) / 4
    assert all_cider([("dog dog dog dog", DOG), ("a cat sits", CAT)])[0] == pytest.approx(expected)


def test_several_references_are_averaged() -> None:
    both = captioned("1", "a dog runs", "one animal moves")
    assert all_cider([("a dog runs", both), ("a cat sits", CAT)])[0] == pytest.approx(7.5 / 2)


@pytest.mark.parametrize(
    ("metric", "said", "reference", "score"),
    [
        ("contains", "It is keep going.", "keep going", 1),
        ("contains", "yesterday", "yes", 0),
        ("contains", "The answer: Yes!", "yes", 1),
        ("contains", "It is a dog.", "A", 0),
        ("contains", "A.", "a", 1),
        ("contains", "Answer: B", "B", 0),
        ("mllm_cl_science", "A photo of a cell", "A", 0),
        ("mllm_cl_science", "b", "B", 1),
        ("mllm_cl_science", "It is a solid body", "solid", 1),
        ("ocr_contains", "the word is centre", "CENTRE", 1),
        ("ocr_contains", "recentred", "centre", 1),
        ("ocr_contains", "cent re", "centre", 0),
        ("letter_or_text", "(B)", "B", 1),
        ("letter_or_text", "A photo of B", "B", 0),
        ("letter_or_text", "A", "B", 0),
        ("letter_or_text", "two", "2", 1),
        ("letter_or_text", "There are 2.", "2", 1),
        ("letter_or_text", "22", "2", 0),
        ("letter_or_text", "yes.", "Yes", 1),
        ("letter_or_text", "8.4", "8.40", 1),
        ("letter_or_text", "no", "Yes", 0),
    ],
)
def test_texts(metric: str, said: str, reference: str, score: float) -> None:
    assert get_metric(metric).score(said, ask("1", "?", reference)) == score


@pytest.mark.parametrize(("said", "score"), [("Maine, Ohio", 1), ("Only Ohio.", 0.5), ("Texas", 0), ("A state", 0)])
def test_a_list_of_states_scores_the_share_that_is_named(said: str, score: float) -> None:
    listed = ask("1", "Which states touch the lake?", "Maine, Ohio")  # MLLM-CL, eval_sci.py
    assert get_metric("mllm_cl_science").score(said, listed) == score


def test_spaces_do_not_count_in_formulas_and_case_does() -> None:
    formula = ask("1", "?", "\\frac { 1 } { 2 } + X", metadata={"dataset": "HME100k"})
    assert get_metric("ocr_contains").score("\\frac{1}{2}+X", formula) == 1
    assert get_metric("ocr_contains").score("\\frac{1}{2}+x", formula) == 0
