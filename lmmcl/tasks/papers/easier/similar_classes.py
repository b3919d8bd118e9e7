"""The classes most like an image, or most like another class: what the wrong options of ImageNet-VQA are drawn from.

The authors of arXiv 2603.14493 take, for each image, the five wrong classes whose prompt "a photo of {class}" CLIP finds most like
the image (data/processors/imagenet_to_vqa_json.py and its neighbours). What was found for an image is kept by the digest of
its bytes: a preparation that was stopped, or is done again, encodes no image twice.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from lmmcl.errors import UserError
from lmmcl.tasks.images import EncodedImage, open_image
from lmmcl.tasks.papers.easier.clip_encoder import Encoder

PROMPT = "a photo of {}"
"""The authors', without an article: for images."""
NAME_PROMPT = "a photo of a {}."
"""For classes that are compared with classes."""
KEPT = 16
"""Classes that are remembered of an image: enough for any number of wrong options, whichever is the right one."""


class SimilarClasses:
    """Which of `names` an encoder finds most like an image; remembered in `folder`, by encoder, names and image."""

    def __init__(self, encoder: Encoder, names: Sequence[str], folder: Path) -> None:
        self._encoder, self._names = encoder, tuple(dict.fromkeys(names))
        what = json.dumps([encoder.identity, PROMPT, self._names])
        self._file = folder / f"{hashlib.sha256(what.encode()).hexdigest()[:16]}.sqlite"
        self._texts: np.ndarray | None = None

    def of(self, images: Sequence[bytes]) -> list[tuple[str, ...] | UserError]:
        """For each image (the bytes of its file) the most similar names, nearest first; the error for one that cannot be shown."""
        digests = [hashlib.sha256(image).digest() for image in images]
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._file, timeout=60)) as store, store:
            store.execute("CREATE TABLE IF NOT EXISTS similar (image BLOB PRIMARY KEY, classes TEXT)")
            by_digest: dict[bytes, tuple[str, ...] | UserError] = dict(self._recall(store, digests))
            new = {digest: image for digest, image in zip(digests, images, strict=True) if digest not in by_digest}
            ranked = self._rank(new)
            rows = [(digest, json.dumps(places)) for digest, places in ranked.items() if isinstance(places, list)]
            store.executemany("INSERT OR REPLACE INTO similar VALUES (?, ?)", rows)
        by_digest |= {
            digest: places if isinstance(places, UserError) else self._named(places)
            for digest, places in ranked.items()
        }
        return [by_digest[digest] for digest in digests]

    def _recall(self, store: sqlite3.Connection, digests: Iterable[bytes]) -> Iterator[tuple[bytes, tuple[str, ...]]]:
        for digest in dict.fromkeys(digests):
            row = store.execute("SELECT classes FROM similar WHERE image = ?", (digest,)).fetchone()
            if row is not None:
                yield digest, self._named(json.loads(row[0]))

    def _rank(self, images: Mapping[bytes, bytes]) -> dict[bytes, list[int] | UserError]:
        """For each image the places of its most similar names, equals in the order of the names."""
        ranked: dict[bytes, list[int] | UserError] = {}
        pictures = {}
        for digest, image in images.items():
            try:
                pictures[digest] = open_image(EncodedImage(image))
            except UserError as error:
                ranked[digest] = error
        if pictures:
            if self._texts is None:
                self._texts = self._encoder.texts([PROMPT.format(name) for name in self._names])
            alike = self._encoder.images(list(pictures.values())) @ self._texts.T
            places = np.argsort(-alike, axis=1, kind="stable")[:, :KEPT].tolist()
            ranked |= dict(zip(pictures, places, strict=True))
        return ranked

    def _named(self, places: Iterable[int]) -> tuple[str, ...]:
        return tuple(self._names[place] for place in places)


def nearest(encoder: Encoder, names: Sequence[str], count: int) -> Mapping[str, tuple[str, ...]]:
    """For each name the `count` most alike others, nearest first, equals by name; the same name twice counts once."""
    vectors = encoder.texts([NAME_PROMPT.format(name) for name in names])
    alike = vectors @ vectors.T
    by_name = {}
    for index, name in enumerate(names):
        others = {other: float(alike[index, at]) for at, other in enumerate(names) if other != name}
        by_name[name] = tuple(sorted(others, key=lambda other: (-others[other], other))[:count])
    return by_name
