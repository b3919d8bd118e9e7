"""What rows of two data sets have in common: the same images, by their bytes, with the same question.

A row has a fingerprint for each of its answers. With images it stands for all of them and the question; without, for the
whole dialogue up to the answer, as a question such as "why?" says little by itself. Answers do not count: who was taught
another answer to the same question has seen the question. Texts are compared without case, spacing, and forms of letters.
"""

from __future__ import annotations

import base64
import hashlib
import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmmcl.tasks.examples import IMAGE_PLACEHOLDER, Example
from lmmcl.tasks.files.digest import DigestCache, state_of
from lmmcl.tasks.files.formats import sound_rows
from lmmcl.tasks.files.prepared import PreparedExamples
from lmmcl.tasks.images import EncodedImage, ImageSource
from lmmcl.tasks.layouts.columns import AS_NAMED, Columns

VERSION = 1
"""Raised when other rows would count as the same; fingerprints are remembered between runs."""
HELD = 1024
"""Rows held at a time: embedded images make them large."""


@dataclass(frozen=True)
class Fingerprints:
    """`prints[i]` is a fingerprint of row `rows[i]`, counted from 1; `total` rows have them."""

    prints: NDArray[np.uint64]
    rows: NDArray[np.uint32]
    total: int

    def rows_in(self, other: Fingerprints) -> list[tuple[int, int]]:
        """The rows that the other set holds too, each with a row of it that is the same."""
        hits = np.flatnonzero(np.isin(self.prints, other.prints))
        shared: dict[int, int] = {}
        if len(hits):
            order = np.argsort(other.prints, kind="stable")
            places = order[np.searchsorted(other.prints, self.prints[hits], sorter=order)]
            for row, same in zip(self.rows[hits].tolist(), other.rows[places].tolist(), strict=True):
                shared.setdefault(row, same)
        return sorted(shared.items())

    def to_text(self) -> str:
        """For `from_text`."""
        return json.dumps(
            [self.total, *(base64.b64encode(array.tobytes()).decode() for array in (self.prints, self.rows))]
        )

    @classmethod
    def from_text(cls, text: str) -> Fingerprints:
        """The fingerprints that were written as text."""
        total, prints, rows = json.loads(text)
        return cls(
            np.frombuffer(base64.b64decode(prints), np.uint64), np.frombuffer(base64.b64decode(rows), np.uint32), total
        )


def file_fingerprints(path: Path, images: Path | None, digest: str, columns: Columns = AS_NAMED) -> Fingerprints:
    """Those of a local file with this content digest. Remembered; raises UserError for what cannot be read."""
    cache = DigestCache()

    def make() -> Fingerprints:
        rows = sound_rows(path, images, unique_ids=False, columns=columns)
        return fingerprints_of_files(((row.number, example) for row, example in rows), cache)

    return remembered(cache, digest, make)


def fingerprints_of_files(rows: Iterable[tuple[int, Example]], cache: DigestCache) -> Fingerprints:
    """Those of numbered rows whose images are files, or the bytes of such; only some rows are held at a time."""
    digests: dict[ImageSource, str] = {}

    def known() -> Iterator[tuple[int, Example]]:
        numbered = iter(rows)
        while part := list(islice(numbered, HELD)):
            shown = dict.fromkeys(image for _, example in part for image in example.images if isinstance(image, Path))
            new = [image for image in shown if image not in digests]
            digests.update(zip(new, cache.digests([state_of(file) for file in new]), strict=True))
            yield from part

    return fingerprints(known(), lambda image: digests[image] if isinstance(image, Path) else image_digest(image))


def prepared_fingerprints(path: Path) -> Fingerprints:
    """Those of a prepared file, which is read once and then remembered by its size and time."""
    state = state_of(path)

    def make() -> Fingerprints:
        return fingerprints(enumerate(PreparedExamples(path), start=1), image_digest)

    if not state.settled:
        return make()
    return remembered(DigestCache(), json.dumps(state), make)


def remembered(cache: DigestCache, name: str, make: Callable[[], Fingerprints]) -> Fingerprints:
    """Those of the data of this name, made once; the name must tell all that they are made of."""
    memo = f"fingerprints:{VERSION}:{name}"
    if (known := cache.recall(memo)) is not None:
        return Fingerprints.from_text(known)
    computed = make()
    cache.remember(memo, computed.to_text())
    return computed


def fingerprints(rows: Iterable[tuple[int, Example]], digest: Callable[[ImageSource], str]) -> Fingerprints:
    """The fingerprints of numbered rows; `digest` stands for the content of an image."""
    prints: list[int] = []
    numbers: list[int] = []
    total = 0
    for number, example in rows:
        total += 1
        for text in _exchanges(example, [digest(image) for image in example.images]):
            prints.append(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]))
            numbers.append(number)
    return Fingerprints(np.array(prints, np.uint64), np.array(numbers, np.uint32), total)


def _exchanges(example: Example, images: list[str]) -> Iterator[str]:
    """A text for each answer of a dialogue that is equal where images and question are."""
    shown = " ".join(sorted(images))
    before: list[str] = []
    for message in example.messages:
        if message.role == "assistant" and before:
            yield f"{shown}\n{before[-1] if images else chr(10).join(before)}"
        before.append(_plain(message.content))


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text.replace(IMAGE_PLACEHOLDER, " ")).casefold().split())


def image_digest(image: ImageSource) -> str:
    """SHA-256 of an image's encoded bytes, in hex; raises TypeError for an image that is not held as bytes."""
    if not isinstance(image, EncodedImage):
        raise TypeError(f"{type(image).__name__} is not the bytes of an image file")
    return hashlib.sha256(image.data).hexdigest()
