"""What the papers' questions share: the sentences that ask for a short answer, lettered options, images, fixed draws."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from lmmcl.tasks.base import IMAGE_PLACEHOLDER, Example, Message
from lmmcl.tasks.formats import EncodedImage
from lmmcl.tasks.hub_data import HubSource, Row

if TYPE_CHECKING:
    from PIL.Image import Image

    from lmmcl.tasks.hub_client import Hub

LETTER = "Answer with the option's letter from the given choices directly."
PHRASE = "Answer the question using a single word or phrase."
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def clean(text: str) -> str:
    """A question without the marks that some data sets put where the image goes, and without outer spaces."""
    return text.replace(f"\n{IMAGE_PLACEHOLDER}", "").replace(IMAGE_PLACEHOLDER, "").strip()


def picture(value: Mapping[str, Any]) -> Image:
    """An image as the hub gives it, {"bytes", "path"}, kept as its bytes; raises ValueError when there are none."""
    data = value["bytes"]
    if data is None and value.get("path"):
        from pathlib import Path

        data = Path(value["path"]).read_bytes()
    if not data:
        raise ValueError("an image without bytes")
    return cast("Image", EncodedImage(data))


def pictured(
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
        answers=tuple(str(each) for each in answers),
        metadata={name: value for name, value in metadata.items() if value is not None},
    )


def options(choices: Sequence[object]) -> str:
    """`A. first`, `B. second` … on lines of their own; raises ValueError for fewer than two or more than 26."""
    if not 2 <= len(choices) <= len(LETTERS):
        raise ValueError(f"{len(choices)} options")
    return "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))


def drawn(items: Iterable[str], key: str) -> list[str]:
    """The items in an order that looks random and is a function of `key` and the items alone, on every machine."""
    return sorted(items, key=lambda item: hashlib.sha256(f"{key}\0{item}".encode()).digest())


def most_common(answers: Sequence[str]) -> str:
    """The answer that most annotators gave; of equals the first."""
    return Counter(answers).most_common(1)[0][0]


def numbered_rows(hub: Hub, source: HubSource) -> Iterator[Row]:
    """Rows of a data set without ids, numbered from 0."""
    for number, row in enumerate(replace(source, rows=None).all_rows(hub)):
        yield {"id": number, **row}
