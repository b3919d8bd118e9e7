"""Whether images can be shown, known by decoding all of each; remembered by the digest of its bytes.

`lmmcl data check` and training share it, so an image is decoded for this once on a machine.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lmmcl.errors import UserError
from lmmcl.tasks.files.digest import DigestCache, state_of
from lmmcl.tasks.images import DECODING, MAX_PIXELS, Conversion, EncodedImage, ImageSource, inspect_image, open_image


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong with an image (None: nothing), what is done to it before it is shown, and its width and height."""

    problem: str | None
    conversions: tuple[Conversion, ...] = ()
    size: tuple[int, int] | None = None


class PixelBudget:
    """Pixels decoded at a time, by all threads together: large images wait for one another, small ones do not."""

    def __init__(self, pixels: int) -> None:
        self._free = pixels
        self._changed = threading.Condition()

    @contextmanager
    def taking(self, pixels: int) -> Iterator[None]:
        """Waits until there is room; an image may take the whole budget, and none more."""
        with self._changed:
            self._changed.wait_for(lambda: self._free >= pixels)
            self._free -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._free += pixels
                self._changed.notify_all()


def examine(image: ImageSource, budget: PixelBudget) -> Verdict:
    """What becomes of an image, known after decoding all of it."""
    try:
        facts = inspect_image(image)
        with budget.taking(facts.pixels):
            open_image(image)
    except UserError as error:
        return Verdict(error.message)
    return Verdict(None, facts.conversions, (facts.width, facts.height))


class ImageJudge:
    """Decodes images, several at a time; a context manager, for its threads."""

    def __init__(self, cache: DigestCache | None = None) -> None:
        self.cache = cache or DigestCache()
        self.budget = PixelBudget(MAX_PIXELS)

    def __enter__(self) -> ImageJudge:
        self.pool = ThreadPoolExecutor()
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def judge(self, images: Sequence[ImageSource]) -> list[Verdict]:
        """A verdict for each image; of those that are the same, or were judged before, without decoding them again."""
        digests = self._digests(images)
        known = {memo: _from_memo(text) for memo, text in self.cache.recall_many(_memos(digests)).items()}
        new = {digest: image for image, digest in zip(images, digests, strict=True) if _memo(digest) not in known}
        verdicts = dict(zip(new, self.pool.map(lambda image: examine(image, self.budget), new.values()), strict=True))
        sound = {
            _memo(digest): _to_memo(verdict) for digest, verdict in verdicts.items() if digest and not verdict.problem
        }
        self.cache.remember_many(sound)
        return [verdicts[digest] if digest in verdicts else known[_memo(digest)] for digest in digests]

    def _digests(self, images: Sequence[ImageSource]) -> list[str]:
        """What stands for the bytes of each image; its path where they cannot be read."""
        states = {}
        for image in images:
            if isinstance(image, Path) and image not in states:
                try:
                    states[image] = state_of(image)
                except OSError:
                    continue
        hashes = dict(zip(states, self._hashed(list(states.values())), strict=True))
        return [
            hashes.get(image, f"unread {image}") if isinstance(image, Path) else _embedded_digest(image)
            for image in images
        ]

    def _hashed(self, states: list) -> list[str]:
        try:
            return self.cache.digests(states)
        except OSError:  # one of them cannot be read: they are reported one by one when they are opened
            return [f"unread {state.path}" for state in states]


def _embedded_digest(image: ImageSource) -> str:
    if not isinstance(image, EncodedImage):
        raise TypeError(f"{type(image).__name__} is not an image of a data file")
    return hashlib.sha256(image.data).hexdigest()


def _memo(digest: str) -> str:
    return f"decoded:{DECODING}:{digest}"


def _memos(digests: Sequence[str]) -> list[str]:
    return [_memo(digest) for digest in dict.fromkeys(digests)]


def _to_memo(verdict: Verdict) -> str:
    return json.dumps([[conversion.name for conversion in verdict.conversions], verdict.size])


def _from_memo(text: str) -> Verdict:
    conversions, size = json.loads(text)
    return Verdict(None, tuple(Conversion[name] for name in conversions), tuple(size))
