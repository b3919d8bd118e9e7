"""The pictures of questions, small enough for a page: of benchmarks that draw themselves or lie in local files."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from lmmcl.errors import UserError
from lmmcl.tasks.examples import Example
from lmmcl.tasks.hub.hub_data import HubBenchmark
from lmmcl.tasks.lmms_eval.benchmark import LmmsEvalBenchmark
from lmmcl.tasks.skills import Benchmark
from lmmcl.tasks.synthetic.draw import Examples as Drawn

if TYPE_CHECKING:
    from PIL.Image import Image

THUMBNAIL = 96
"""Longest side of a small picture, in pixels."""
LARGE, LOSSLESS = 1024, 128
"""Longest side of a picture that is looked at, and the side up to which it is kept exactly."""
REMEMBERED = 5_000
"""Small pictures whose bytes are remembered: page and tables show the same ones, and a run makes them while others compute."""
_remembered: dict[tuple[str, tuple[int, int], bytes], bytes] = {}


class Pictures:
    """Small pictures of questions, until `most` bytes (as data URIs) are spent."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._questions: dict[str, Questions] = {}

    def of(self, benchmark: Benchmark, id: str) -> str | None:
        """The first picture of a question as a data URI; None without one, and once the bytes are spent."""
        encoded = self.bytes_of(benchmark, id)
        return f"data:image/{encoded[1]};base64,{base64.b64encode(encoded[0]).decode()}" if encoded else None

    def bytes_of(self, benchmark: Benchmark, id: str) -> tuple[bytes, str] | None:
        """(bytes, `png` or `jpeg`) of the first picture of a question; None without one, and once the bytes are spent."""
        if self._left <= 0:
            return None
        if benchmark.name not in self._questions:
            self._questions[benchmark.name] = Questions(benchmark)
        example = self._questions[benchmark.name].find(id)
        if example is None or not example.images:
            return None
        content, kind = thumbnail(example)
        self._left -= len(content) * 4 // 3
        return (content, kind) if self._left >= 0 else None


class Questions:
    """The questions of a benchmark by id, read (or drawn) no further than asked for; none where they lie on a hub, where
    lmms-eval would fetch them, or in files that have gone since: a report neither downloads nor imports lmms-eval."""

    def __init__(self, benchmark: Benchmark) -> None:
        self._seen: dict[str, Example] = {}
        self._drawn: Drawn | None = None
        self._rest: Iterator[Example] = iter(())
        if isinstance(benchmark, HubBenchmark | LmmsEvalBenchmark):
            return
        with suppress(UserError, OSError):
            examples = benchmark.load()
            self._drawn = examples if isinstance(examples, Drawn) else None
            self._rest = iter(examples)

    def find(self, id: str) -> Example | None:
        """The question called `id`, if it is there."""
        if self._drawn is not None:
            return self._drawn.find(id)
        with suppress(UserError, OSError):
            while id not in self._seen and (example := next(self._rest, None)) is not None:
                self._seen[example.id] = example
        return self._seen.get(id)


def thumbnail(example: Example) -> tuple[bytes, str]:
    """The first picture, made small: PNG where it is as small as drawn ones are, else JPEG."""
    return encode_picture(example.open_images()[0], THUMBNAIL, THUMBNAIL)


def encode_picture(picture: Image, longest: int = LARGE, lossless: int = LOSSLESS) -> tuple[bytes, str]:
    """(bytes, `png` or `jpeg`): exact where no side is above `lossless`, else no larger than `longest`."""
    kind = "png" if max(picture.size) <= lossless else "jpeg"
    picture.thumbnail((longest, longest))
    if kind == "jpeg" or picture.info or picture.mode not in ("RGB", "L"):  # many bytes, or not of the pixels alone
        return _encode(picture, kind), kind
    key = picture.mode, picture.size, hashlib.sha256(picture.tobytes()).digest()
    content = _remembered.get(key) or _encode(picture, kind)
    if len(_remembered) < REMEMBERED:
        _remembered[key] = content
    return content, kind


def _encode(picture: Image, kind: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, optimize=True)
    return file.getvalue()
