"""CIDEr-D for captions (Vedantam et al. 2015, arXiv 1411.5726), in our own words and without Java.

The score of a caption is the mean over n = 1 … 4 of a clipped TF-IDF cosine with each reference, with a Gaussian penalty
for another length (σ = 6), the mean over references, times 10, as the COCO evaluation has it: 1.0 (100 points) is a good
caption, 10 the most. n-grams are weighed by how few images' references hold them, so a score depends on all examples asked.
Words are runs of letters, digits and apostrophes in lower case; the official tool uses the Penn Treebank tokenizer, which
differs in contractions and hyphens.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lmmcl.tasks.examples import Example
from lmmcl.tasks.metrics.parse_answer import plain_form

ORDERS = 4
SIGMA = 6.0
SCALE = 10.0
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")

Grams = Mapping[tuple[str, ...], int]


@dataclass(frozen=True)
class Weights:
    """In how many images' references each n-gram occurs, and the logarithm of the number of images."""

    images_with: Grams
    log_images: float

    def of(self, gram: tuple[str, ...]) -> float:
        """ln(images / images with it); an n-gram that no reference holds counts as if one did."""
        return self.log_images - math.log(max(1, self.images_with.get(gram, 0)))


def words(text: str) -> list[str]:
    """The words of a caption."""
    return _WORD.findall(plain_form(text).casefold())


def grams(text: str) -> Counter[tuple[str, ...]]:
    """How often each n-gram of one to four words occurs."""
    tokens = words(text)
    return Counter(tuple(tokens[i : i + n]) for n in range(1, ORDERS + 1) for i in range(len(tokens) - n + 1))


def corpus_weights(examples: Sequence[Example]) -> Weights:
    """Weights from the references of all examples asked."""
    images_with: Counter[tuple[str, ...]] = Counter()
    for example in examples:
        images_with.update({gram for reference in example.references for gram in grams(reference)})
    return Weights(images_with, math.log(max(1, len(examples))))


def cider(prediction: str, example: Example, weights: Weights) -> float:
    """CIDEr-D of one caption, 0 to 10."""
    predicted = grams(prediction)
    return (
        SCALE
        * sum(_likeness(predicted, grams(reference), weights) for reference in example.references)
        / len(example.references)
    )


def _likeness(predicted: Grams, reference: Grams, weights: Weights) -> float:
    """The mean over n of the clipped cosine, times the length penalty; lengths are numbers of words."""
    difference = _length(predicted) - _length(reference)
    penalty = math.exp(-(difference**2) / (2 * SIGMA**2))
    return penalty * sum(_cosine(predicted, reference, n, weights) for n in range(1, ORDERS + 1)) / ORDERS


def _length(counted: Grams) -> int:
    return sum(count for gram, count in counted.items() if len(gram) == 1)


def _cosine(predicted: Grams, reference: Grams, n: int, weights: Weights) -> float:
    ours = {gram: count * weights.of(gram) for gram, count in predicted.items() if len(gram) == n}
    theirs = {gram: count * weights.of(gram) for gram, count in reference.items() if len(gram) == n}
    lengths = math.hypot(*ours.values()) * math.hypot(*theirs.values())
    if not lengths:
        return 0.0
    return sum(min(value, theirs.get(gram, 0.0)) * theirs.get(gram, 0.0) for gram, value in ours.items()) / lengths


def all_cider(answers: Sequence[tuple[str, Example]]) -> list[float]:
    """CIDEr-D of every caption, weighed by the references of all of them."""
    weights = corpus_weights([example for _, example in answers])
    return [cider(prediction, example, weights) for prediction, example in answers]


def alone(prediction: str, example: Example) -> float:
    """CIDEr-D (Vedantam et al. 2015); of one caption alone, every n-gram weighs the same: 1 for a reference's words, else less."""
    predicted = grams(prediction)
    return max(_alone(predicted, grams(reference)) for reference in example.references)


def _alone(predicted: Grams, reference: Grams) -> float:
    if predicted == reference:
        return 1.0
    return min(1.0, _likeness(predicted, reference, Weights({}, 1.0)))
