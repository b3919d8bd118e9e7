"""Full-width letters, the marks of East Asian keyboards and composed or split accents are read alike by every metric."""

from __future__ import annotations

import unicodedata

import pytest

from lmmcl.tasks.examples import ask
from lmmcl.tasks.metrics.metric import get_metric, metric_names


def score(metric: str, said: str, reference: str) -> float:
    return get_metric(metric).score(said, ask("row", "?", reference, answers=(reference,)))


RIGHT = [
    ("letter", "Ａ", "A"),
    ("letter", "（A）", "A"),
    ("letter", "（Ａ）", "A"),
    ("letter", "A。", "A"),
    ("letter", "【B】", "B"),
    ("letter", "Ａ． 犬", "A"),
    ("letter", "B、because the beak is red", "B"),
    ("letter", "A", "Ａ"),
    ("letter_or_text", "Ｂ。", "B"),
    ("letter_or_text", "B", "Ｂ"),
    ("letter_or_text", "５", "5"),
    ("yes_no", "yes。", "yes"),
    ("yes_no", "ＹＥＳ", "yes"),
    ("yes_no", "「no」", "no"),
    ("yes_no", "no。yes would be wrong", "no"),
    ("exact_match", "red。", "red"),
    ("exact_match", "「ｒｅｄ」", "red"),
    ("contains", "it is red。", "red"),
    ("contains", "（a）", "a"),
    ("integer", "１６。", "16"),
    ("integer", "１，２３４", "1234"),
    ("clock", "７：０５。", "7:05"),
    ("ocr_contains", "ＳＴＯＰ　ＨＥＲＥ", "stop here"),
    ("anls", "ＳＴＯＰ", "stop"),
    ("relaxed_accuracy", "１２％", "12%"),
    ("relaxed_accuracy", "￥５００", "500"),
    ("vqa_soft", "ｙｅｓ。", "yes"),
    ("cider", "ａ　red　dog。", "a red dog"),
    ("mllm_cl_science", "（A）", "A"),
    ("matching_words", "ＬＥＦＴ　ventricle。", "left ventricle"),
]


@pytest.mark.parametrize(("metric", "said", "reference"), RIGHT)
def test_full_width_letters_and_marks_are_the_plain_ones(metric: str, said: str, reference: str) -> None:
    assert score(metric, said, reference) == 1


def test_every_metric_is_tried() -> None:
    assert {metric for metric, _, _ in RIGHT} == set(metric_names())


@pytest.mark.parametrize("metric", sorted(set(metric_names()) - {"letter", "integer", "clock", "yes_no"}))
def test_composed_and_split_accents_are_the_same_word(metric: str) -> None:
    composed, split = (unicodedata.normalize(form, "crème brûlée, Ärger") for form in ("NFC", "NFD"))
    assert composed != split
    assert score(metric, split, composed) == score(metric, composed, split) == 1


@pytest.mark.parametrize(
    ("metric", "said", "reference"),
    [
        ("letter", "Ａ、Ｂ", "A"),
        ("integer", "3。5", "3.5"),
        ("anls", "x²", "x2x2"),
        ("ocr_contains", "x²", "x2"),
        ("yes_no", "yes。no", "no"),
    ],
)
def test_what_is_written_otherwise_stays_another_answer(metric: str, said: str, reference: str) -> None:
    assert score(metric, said, reference) == 0
