"""Metrics: how right a free-text answer is, from 0 to 1. What an answer states is read in parse_answer.py.

A metric is code and so carries a version, which is part of the key of every evaluation that uses it: raise it with
every change of a score. Of several references the best one counts, except where a metric says otherwise.

Where lmms-eval has the metric too, `tests/tasks/metrics/test_metrics_lmms_eval.py` holds ours against it; "lmms-eval:" below says
what differs on purpose.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from lmmcl.errors import UserError, unknown
from lmmcl.tasks.examples import Example
from lmmcl.tasks.metrics.cider import all_cider, alone
from lmmcl.tasks.metrics.parse_answer import (
    normalise,
    number_words,
    one_line,
    plain_form,
    stated_letter,
    stated_number,
    stated_time,
    stated_yes_no,
)
from lmmcl.tasks.metrics.text_match import contains, letter_or_text, matching_words, ocr_contains, science
from lmmcl.tasks.metrics.vqa_normalisation import vqa_normalise

T = TypeVar("T")


@dataclass(frozen=True)
class Metric:
    """A way to score an answer. `score(prediction, example)` is in [0, 1]; the benchmark's score is the mean.

    `score` raises UserError when a reference of the example is nothing this metric can compare with. A metric that weighs an
    answer by all examples asked has `together`: from all (prediction, example) to all scores, in place of `score`; these
    may exceed 1 where the metric's owners define it so (CIDEr: 0 to 10, published times 100 as ours are).
    """

    name: str
    version: int
    score: Callable[[str, Example], float] = field(compare=False)
    together: Callable[[Sequence[tuple[str, Example]]], list[float]] | None = field(default=None, compare=False)


def get_metric(name: str) -> Metric:
    """The metric called `name`; raises UserError with the nearest names when there is none."""
    if name not in _METRICS:
        raise UserError(unknown("metric", name, _METRICS))
    return _METRICS[name]


def metric_names() -> tuple[str, ...]:
    """The names of all metrics, sorted."""
    return tuple(sorted(_METRICS))


def _read(example: Example, reader: Callable[[str], T | None], what: str) -> list[T]:
    """Every reference of the example as `reader` reads it: a reference it cannot read would only ever score 0."""
    values = []
    for reference in example.references:
        value = reader(reference)
        if value is None:
            raise UserError(f"the reference {reference!r} is not {what}", place=f"example {example.id}")
        values.append(value)
    return values


def _same(answer: object, references: list) -> float:
    return float(answer is not None and answer in references)


def exact_match(prediction: str, example: Example) -> float:
    """1 if the normalised answer is a reference; an answer that is a number word equals its digits ("three" = "3").

    lmms-eval: drops marks inside words too, keeps articles and outer spaces, and reads no number words.
    """
    answer = _spelt_out(normalise(prediction))
    return float(any(answer == _spelt_out(normalise(reference)) for reference in example.references))


def _spelt_out(text: str) -> str:
    value = number_words(text)
    return text if value is None else str(value)


def letter(prediction: str, example: Example) -> float:
    """1 if the option letter that the answer states is a reference ("B", "(b)" …).

    lmms-eval: takes any capital that is an option, also from running text ("A photo of B"), and no small letter.
    """
    return _same(stated_letter(prediction), _read(example, stated_letter, "an option letter"))


def integer(prediction: str, example: Example) -> float:
    """1 if the number that the answer states equals a reference: no tolerance, 3.0 is 3, 3.5 is not.

    lmms-eval: takes the first digits, so 3.5 and -3 are 3 and "2 of the 5, so 5" is 2, and reads no number words.
    """
    return _same(stated_number(prediction), _read(example, stated_number, "a number"))


def yes_no(prediction: str, example: Example) -> float:
    """1 if the answer says the yes or no of a reference. lmms-eval: the answer must be the one word."""
    return _same(stated_yes_no(prediction), _read(example, stated_yes_no, "yes or no"))


def vqa_soft(prediction: str, example: Example) -> float:
    """VQA accuracy (Antol et al. 2015): min(1, matches / 3) over ten annotators' answers, EvalAI normalisation.

    With ten references or more it is averaged over every set that leaves one of them out, as the official script does.
    With n < 10 the same share of annotators, three in ten, is asked for: min(1, matches / max(1, 0.3 n)); so with
    three references or fewer one match is enough. lmms-eval: leaves one out of fewer than ten as well, cuts 's off before
    contractions are looked up ("thats" is not "that's"), and joins words that only a comma parts.
    """
    answer = vqa_normalise(prediction)
    matches = [vqa_normalise(reference) == answer for reference in example.references]
    n, total = len(matches), sum(matches)
    if n < 10:
        return min(1.0, total / max(1.0, 0.3 * n))
    return sum(min(1.0, (total - match) / 3) for match in matches) / n


def anls(prediction: str, example: Example) -> float:
    """Normalised Levenshtein similarity (ANLS; Biten et al. 2019, eq. 1): 1 − distance / longer length, 0 below 0.5.

    A distance of exactly half the length gives 0. Case and runs of spaces do not count. The best reference counts.
    lmms-eval: half the length gives 0.5, and spaces count in the length.
    """
    from rapidfuzz.distance import Levenshtein

    answer = one_line(prediction)
    best = max(Levenshtein.normalized_similarity(answer, one_line(reference)) for reference in example.references)
    return best if best > 0.5 else 0.0


_QUANTITY = re.compile(r"[$€£¥]?\s*([-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:e[-+]?\d+)?)\s*(%|percent)?")


def relaxed_accuracy(prediction: str, example: Example) -> float:
    """ChartQA's relaxed accuracy (Masry et al. 2022): a number within 5 % of the reference, a text equal to it.

    Thousands commas and currency signs do not count. A percent sign on one side only may stand for the number or its
    hundredth: "12 %" is right for 12 and for 0.12. A reference of 0 asks for 0. lmms-eval: "1,234" and "$5" are texts, 12 % is
    0.12 alone, a reference of 0 is compared as text, and so are texts with articles and final points.
    """
    return float(any(_relaxed(prediction, reference) for reference in example.references))


def _relaxed(prediction: str, reference: str) -> bool:
    answered, wanted = _quantity(prediction), _quantity(reference)
    if answered is None or wanted is None:
        return normalise(prediction) == normalise(reference)
    (value, percent), (target, target_percent) = answered, wanted
    readings = [(value, target)]
    if percent != target_percent:
        readings.append((value / 100, target) if percent else (value, target / 100))
    return any(abs(a - b) <= 0.05 * abs(b) + 1e-12 for a, b in readings)


def _quantity(text: str) -> tuple[float, bool] | None:
    match = _QUANTITY.fullmatch(plain_form(text).strip().strip("\"'*").rstrip(".").casefold())
    if not match or not any(character.isdigit() for character in match[1]):
        return None
    return float(match[1].replace(",", "").replace("−", "-")), bool(match[2])


def clock(prediction: str, example: Example) -> float:
    """1 if the time that the answer states is at most one minute from a reference, around the 12-hour face.

    So the hour must be right and the minute within ±1, and 12:59 is right for 1:00: 59 counts as 1 when the hour
    moves with it. A rule that compares the minutes alone would also take 7:59 for 7:00; here that is 59 minutes off.
    """
    answered, wanted = stated_time(prediction), _read(example, stated_time, "a time (HH:MM)")
    if answered is None:
        return 0.0
    return float(any(min((answered - time) % 720, (time - answered) % 720) <= 1 for time in wanted))


_METRICS = {
    metric.name: metric
    for metric in (
        Metric("anls", 2, anls),
        Metric("cider", 2, alone, all_cider),
        Metric("clock", 1, clock),
        Metric("contains", 3, contains),
        Metric("exact_match", 2, exact_match),
        Metric("integer", 1, integer),
        Metric("letter", 2, letter),
        Metric("letter_or_text", 2, letter_or_text),
        Metric("matching_words", 1, matching_words),
        Metric("ocr_contains", 2, ocr_contains),
        Metric("mllm_cl_science", 2, science),
        Metric("relaxed_accuracy", 2, relaxed_accuracy),
        Metric("vqa_soft", 2, vqa_soft),
        Metric("yes_no", 2, yes_no),
    )
}
