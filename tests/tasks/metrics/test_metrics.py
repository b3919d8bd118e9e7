"""Tables of answers that a careless reader of free text gets wrong."""

from __future__ import annotations

import math
import pickle

import pytest

from lmmcl.errors import UserError
from lmmcl.tasks.examples import ask
from lmmcl.tasks.metrics.metric import get_metric, metric_names


def score(metric: str, prediction: str, *references: str) -> float:
    return get_metric(metric).score(prediction, ask("row-7", "?", references[0], answers=references))


EXACT = [
    ("Red", "red", 1),
    (" the  left ventricle. ", "left ventricle", 1),
    ("“red”", "red", 1),
    ("reddish", "red", 0),
    ("three", "3", 1),
    ("3", "three", 1),
    ("Twenty-one", "21", 1),
    ("one way", "1 way", 0),
    ("", "red", 0),
    ("a", "a", 1),
    ("ＲＥＤ", "red", 1),
    ("not red", "red", 0),
    ("1.5", "15", 0),
    ("", "?", 0),
    ("?", "?", 1),
]


@pytest.mark.parametrize(("said", "reference", "expected"), EXACT)
def test_exact_match_forgives_case_spaces_edges_and_number_words_only(
    said: str, reference: str, expected: float
) -> None:
    assert score("exact_match", said, reference) == expected


@pytest.mark.parametrize(
    ("said", "reference", "expected"),
    [
        ("yes", "yes", 1),
        ("Yes.", "yes", 1),
        ("no", "yes", 0),
        ("the left ventricle", "left ventricle", 2 / 3),  # one of three words is not in the reference
        ("ventricle", "left ventricle", 1),  # and of the answer's words none is missing
        ("left left ventricle", "left ventricle", 2 / 3),  # said twice, counted once
        ("left-sided", "leftsided", 1),  # marks fall out of words
        ("", "yes", 0),
        ("1234", "yes", 0),
        ("2", "2", 1),
        ("two", "2", 0),
    ],
)
def test_pathology_scores_the_share_of_matching_words(said: str, reference: str, expected: float) -> None:
    """LMM-CL, lmms-eval/lmms_eval/tasks/pathvqa/utils.py, calculate_exactmatch (0affbdc)."""
    assert score("matching_words", said, reference) == pytest.approx(expected)


LETTER = [
    ("B", "B"),
    ("b", "B"),
    (" (B) ", "B"),
    ("B.", "B"),
    ("**B**", "B"),
    ("$\\boxed{B}$", "B"),
    ("B. A dog", "B"),
    ("B) a dog", "B"),
    ("B: a dog", "B"),
    ("(B) A dog", "B"),
    ("B - a dog", "B"),
    ("Answer: B", "B"),
    ("answer : (b)", "B"),
    ("The answer is B", "B"),
    ("The correct answer is option B.", "B"),
    ("The answer is **B**, a photo of A", "B"),
    ("The answer is A because of the beak", "A"),
    ("B is correct", "B"),
    ("(B) is the right answer, not (A)", "B"),
    ("Option A shows a cat, so the answer is B", "B"),
    ("The answer is A? No, the answer is B.", "B"),
    ("I think option B", "B"),
    ("It is (B)", "B"),
    ("A cat sits there.\nB", "B"),
    ("B\nThe bird has a red wing.", "B"),
    ("A photo of B", None),
    ("A", "A"),
    ("A bird", None),
    ("I see a bird", None),
    ("I", "I"),
    ("a dog", None),
    ("The answer is a dog", None),
    ("The answer is A dog", None),
    ("the answer is blue", None),
    ("Answer: I don't know", None),
    ("vitamin C", None),
    ("A, B and C", None),
    ("A, B", None),
    ("A and B", None),
    ("(A) and (B)", None),
    ("B, because the beak is red", "B"),
    ("B. A", "B"),
    ("B because the beak is red", "B"),
    ("I would go with B here", "B"),
    ("I choose option (b)", "B"),
    ("I pick a dog", None),
    ("A. B. Smith painted it", None),
    ("Either (A) or (B)", None),
    ("Bird", None),
    ("A-frame", None),
    ("B-52 bomber", None),
    ("", None),
]


@pytest.mark.parametrize(("said", "letter"), LETTER)
def test_letter_reads_the_option_that_is_stated(said: str, letter: str | None) -> None:
    scores = {option: score("letter", said, option) for option in "ABCI"}
    assert scores == {option: float(option == letter) for option in "ABCI"}


INTEGER = [
    ("16", 16),
    ("sixteen", 16),
    ("Sixteen birds.", 16),
    ("sixty", 60),
    ("sixty-one", 61),
    ("sixty one", 61),
    ("one hundred and five", 105),
    ("a hundred", 100),
    ("nine hundred ninety-nine", 999),
    ("1,234", 1234),
    ("1, 2, 3", 3),
    ("1,2,3", 3),
    (".5", None),
    ("There are 3 birds", 3),
    ("3 sparrows and 2 crows, so the total is 5, counted twice in 2 ways", 5),
    ("The answer is 7 (3 left, 4 right)", 7),
    ("**Answer:** 7, as 3 and 4", 7),
    ("3 + 4 = 7", 7),
    ("3 left and 4 right: 7", 7),
    ("I see 4. That is the right one", 4),
    ("one", 1),
    ("There is one bird", 1),
    ("3.0", 3),
    ("3.", 3),
    ("-3", -3),
    ("none", 0),
    ("There are no birds here", 0),
    ("zero", 0),
    ("the 3rd", None),
    ("B2", None),
    ("3.5", None),
    ("someone", None),
    ("often", None),
    ("I do not know", None),
    ("", None),
]


@pytest.mark.parametrize(("said", "number"), INTEGER)
def test_integer_reads_digits_and_words(said: str, number: int | None) -> None:
    candidates = {-3, 0, 1, 2, 3, 4, 5, 6, 7, 10, 16, 60, 61, 99, 100, 105, 234, 999, 1234}
    assert {value for value in candidates if score("integer", said, str(value))} == ({number} - {None})


YES_NO = [
    ("yes", "yes"),
    ("Yes.", "yes"),
    ("No, yes would be wrong", "no"),
    ("There is no dog", "no"),
    ("The answer is yes", "yes"),
    ("NO", "no"),
    ("yes and no", None),
    ("I do not know", None),
    ("nothing", None),
    ("yesterday", None),
    ("", None),
]


@pytest.mark.parametrize(("said", "meant"), YES_NO)
def test_yes_no_needs_one_of_the_words(said: str, meant: str | None) -> None:
    assert {word for word in ("yes", "no") if score("yes_no", said, word)} == ({meant} - {None})


VQA = [
    # ten annotators: three that agree make it right; leaving out an agreeing one of exactly three leaves 2/3
    ("coca cola", ["coca cola"] * 10, 1),
    ("coca cola", ["coca cola"] * 4 + ["pepsi"] * 6, 1),
    ("coca cola", ["coca cola"] * 3 + ["pepsi"] * 7, (3 * 2 / 3 + 7) / 10),
    ("coca cola", ["coca cola"] * 1 + ["pepsi"] * 9, (0 + 9 / 3) / 10),
    ("coca cola", ["pepsi"] * 10, 0),
    # fewer: the same share
    ("red", ["red"], 1),
    ("red", ["red", "blue", "green"], 1),
    ("red", ["red", "blue", "green", "pink", "grey"], 1 / 1.5),
    # the challenge's normalisation
    ("The Red, car.", ["red car"], 1),
    ("two", ["2"], 1),
    ("none", ["0"], 1),
    ("dont", ["don't"], 1),
    ("1,000", ["1000"], 1),
    ("3.5", ["35"], 0),
    ("well-known", ["well known"], 1),
    ("", ["red"], 0),
]


@pytest.mark.parametrize(("said", "references", "expected"), VQA)
def test_vqa_soft_counts_annotators(said: str, references: list[str], expected: float) -> None:
    assert score("vqa_soft", said, *references) == pytest.approx(expected)


ANLS = [
    ("Sept. 1998", ["sept. 1998"], 1),
    ("kitten", ["sitting"], 1 - 3 / 7),
    ("abcd", ["abxy"], 0),  # exactly half the length is too far
    ("abc", ["xyz", "abd"], 2 / 3),
    ("", ["abc"], 0),
    ("a   b", ["a b"], 1),
]


@pytest.mark.parametrize(("said", "references", "expected"), ANLS)
def test_anls_is_a_similarity_cut_off_at_half(said: str, references: list[str], expected: float) -> None:
    assert score("anls", said, *references) == pytest.approx(expected)


RELAXED = [
    ("104", "100", 1),
    ("105", "100", 1),
    ("106", "100", 0),
    ("-100", "100", 0),
    ("1,040", "1000", 1),
    ("$1,040", "1000", 1),
    ("12%", "12", 1),
    ("12", "12%", 1),
    ("12 percent", "12%", 1),
    ("12%", "0.12", 1),
    ("0.12", "12%", 1),
    ("12%", "20%", 0),
    ("0", "0", 1),
    ("0.01", "0", 0),
    ("12.", "12", 1),
    ("Yes", "yes", 1),
    ("Germany", "France", 0),
    ("about 12", "12", 0),
    ("infinity", "12", 0),
    ("nan", "nan", 1),
    ("", "12", 0),
]


@pytest.mark.parametrize(("said", "reference", "expected"), RELAXED)
def test_relaxed_accuracy_allows_five_percent(said: str, reference: str, expected: float) -> None:
    assert score("relaxed_accuracy", said, reference) == expected


CLOCK = [
    ("7:05", "07:05", 1),
    ("07:05", "7:05", 1),
    ("7:05 PM", "7:05", 1),
    ("19:05", "7:05", 1),
    ("It is 7.05.", "7:05", 1),
    ("7 : 05", "7:05", 1),
    ("7:05:30", "7:05", 1),
    ("7 o'clock", "7:00", 1),
    ("7:04", "7:05", 1),
    ("7:06", "7:05", 1),
    ("7:07", "7:05", 0),
    ("8:05", "7:05", 0),
    ("12:59", "1:00", 1),
    ("1:00", "12:59", 1),
    ("6:59", "7:00", 1),
    ("11:59", "0:00", 1),
    ("23:59", "12:00", 1),
    ("7:59", "7:00", 0),
    ("not 3:00 but 7:05", "7:05", 1),
    ("5:07", "7:05", 0),
    ("7:5", "7:05", 0),
    ("7:65", "8:05", 0),
    ("31:05", "7:05", 0),
    ("705", "7:05", 0),
    ("", "7:05", 0),
]


@pytest.mark.parametrize(("said", "reference", "expected"), CLOCK)
def test_clock_allows_one_minute_around_the_face(said: str, reference: str, expected: float) -> None:
    assert score("clock", said, reference) == expected


def test_every_metric_says_one_for_its_own_reference_and_stays_in_the_unit_interval() -> None:
    references = {"letter": "B", "integer": "4", "yes_no": "no", "clock": "7:05", "relaxed_accuracy": "12 %"}
    noise = ["", " ", "?", "A photo of B", "sixteen", "1,2,3", "٣", "½", "\n\n", "yes\x00no", "7:05 8:05", "()[]"]
    assert len(metric_names()) >= 8
    for name in metric_names():
        reference = references.get(name, "left ventricle")
        assert score(name, reference, reference) == 1.0
        for text in noise:
            value = score(name, text, reference)
            assert 0.0 <= value <= 1.0 and not math.isnan(value)


@pytest.mark.parametrize(
    ("metric", "bad"), [("letter", "dog"), ("integer", "many"), ("yes_no", "dog"), ("clock", "noon")]
)
def test_a_reference_that_the_metric_cannot_read_is_an_error_that_names_the_example(metric: str, bad: str) -> None:
    with pytest.raises(UserError, match=rf"row-7.*{bad}"):
        score(metric, "B", bad)


def test_a_wrong_name_is_answered_with_the_near_ones() -> None:
    with pytest.raises(UserError, match="did you mean 'integer'"):
        get_metric("interger")


def test_a_metric_travels_to_another_process() -> None:
    assert pickle.loads(pickle.dumps(get_metric("clock"))) == get_metric("clock")
