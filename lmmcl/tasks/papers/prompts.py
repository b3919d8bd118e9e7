"""What the papers' questions share: the sentences that ask for a short answer, lettered options, images, fixed draws."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lmmcl.tasks.examples import IMAGE_PLACEHOLDER, Example, Message
from lmmcl.tasks.hub.hub_data import HubBenchmark, HubSource, Row, hub_benchmark
from lmmcl.tasks.images import EncodedImage

if TYPE_CHECKING:
    from lmmcl.tasks.hub.client import Hub

LETTER = "Answer with the option's letter from the given choices directly."
PHRASE = "Answer the question using a single word or phrase."
WORD = "Answer the question with a single word."
"""Of ChartQA in lmms-eval."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SEE_PAGE = "see the data set's page"
"""For a licence that its owner states there alone."""


def clean(text: str) -> str:
    """A question without the marks that some data sets put where the image goes, and without outer spaces."""
    return text.replace(f"\n{IMAGE_PLACEHOLDER}", "").replace(IMAGE_PLACEHOLDER, "").strip()


def picture(value: Mapping[str, Any]) -> EncodedImage:
    """An image as the hub gives it, {"bytes", "path"}, kept as its bytes; raises ValueError when there are none."""
    data = value["bytes"]
    if data is None and value.get("path"):
        from pathlib import Path

        data = Path(value["path"]).read_bytes()
    if not data:
        raise ValueError("an image without bytes")
    return EncodedImage(data)


def make_example(
    id: object,
    question: str,
    answer: object,
    images: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    answers: Iterable[object] = (),
    **metadata: Any,
) -> Example:
    """One question about one or more images, shown before it; metadata without a value is dropped."""
    shown = [images] if isinstance(images, Mapping) else list(images)
    marks = "\n".join([IMAGE_PLACEHOLDER] * len(shown))
    return Example(
        id=str(id),
        messages=(Message("user", f"{marks}\n{clean(question)}".strip()), Message("assistant", str(answer).strip())),
        images=tuple(picture(image) for image in shown),
        answers=tuple(str(accepted) for accepted in answers),
        metadata={name: value for name, value in metadata.items() if value is not None},
    )


def options(choices: Sequence[object]) -> str:
    """`A. first`, `B. second` … on lines of their own; raises ValueError for fewer than two or more than 26."""
    if not 2 <= len(choices) <= len(LETTERS):
        raise ValueError(f"{len(choices)} options")
    return "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))


def multiple_choice(question: str, choices: Sequence[object]) -> str:
    """A question with its options below it, to be answered by a letter."""
    return f"{question}\n{options(choices)}\n{LETTER}"


def deterministic_shuffle(items: Iterable[str], key: str) -> list[str]:
    """The items in an order that looks random and is a function of `key` and the items alone, on every machine."""
    return sorted(items, key=lambda item: hashlib.sha256(f"{key}\0{item}".encode()).digest())


def most_common(answers: Sequence[str]) -> str:
    """The answer that most annotators gave; of equals the first."""
    return Counter(answers).most_common(1)[0][0]


def with_image(row: Row, image: bytes | Mapping[str, Any] | None, why: str = "image not found") -> Row:
    """The row with its image, as bytes or as the hub gives it; where there is none, with `why` it is left out."""
    if image is None:
        return {**row, "left_out": why}
    return {**row, "image": {"bytes": image, "path": None} if isinstance(image, bytes) else image}


def numbered_rows(hub: Hub, source: HubSource) -> Iterator[Row]:
    """Rows of a data set without ids, numbered from 0."""
    for number, row in enumerate(replace(source, rows=None).all_rows(hub)):
        yield {"id": number, **row}


def short_answers(
    name: str, version: int, metric: str, source: HubSource, description: str, **more: Any
) -> HubBenchmark:
    """A benchmark whose answers are a letter, a number or a few words, for which sixteen tokens are enough."""
    return hub_benchmark(name, version, metric, source, max_new_tokens=16, description=description, **more)
