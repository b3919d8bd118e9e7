"""Before a stage needs them, all its images are decoded once, beside the loading of its model: none breaks it in the middle.

What was decoded is remembered, of each image by its digest and of data as a whole by their identity, so that this is done once.
Data of the hub are decoded when they are prepared, and images that code draws need none of this.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmmcl.errors import UserError
from lmmcl.tasks.examples import Example, Rows
from lmmcl.tasks.files.digest import DigestCache
from lmmcl.tasks.files.image_check import ImageJudge
from lmmcl.tasks.files.local_files import LocalBenchmark, LocalSkill
from lmmcl.tasks.images import DECODING, EncodedImage
from lmmcl.tasks.skills import Data

BATCH = 256
"""Images decoded together."""


@dataclass(frozen=True)
class Shown:
    """Data whose images are to be decoded: what messages call them, what stands for them, and how to read them."""

    name: str
    identity: Any
    load: Callable[[], Sequence[Example]]


def shown_by(what: str, data: Data, count: int | None) -> Iterator[Shown]:
    """The images of `count` rows (None: all) of a skill or benchmark, where they are files of the user's own."""
    if isinstance(data, LocalSkill | LocalBenchmark):
        yield Shown(f"{what} {data.name}", [data.data.identity(), count], lambda: data.take(count))


@contextmanager
def images_decoded(shown: Sequence[Shown], cache: DigestCache | None = None) -> Iterator[None]:
    """Decode the images of `shown` in a thread while the body runs; raises UserError for the first that cannot be shown.

    An error of the body comes first; the thread then ends after the images that it has begun with.
    """
    failed: list[BaseException] = []
    stop = threading.Event()

    def work() -> None:
        try:
            for example in shown:
                _decode(example, cache or DigestCache(), stop)
        except BaseException as error:  # noqa: BLE001  # raised again by the thread that waits
            failed.append(error)

    thread = threading.Thread(target=work, name="decode images", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        stop.set()
        raise
    finally:
        thread.join()
    if failed:
        raise failed[0]


def _decode(shown: Shown, cache: DigestCache, stop: threading.Event) -> None:
    key = hashlib.sha256(json.dumps(shown.identity, sort_keys=True).encode()).hexdigest()
    memo = f"all decoded:{DECODING}:{key}"
    if cache.recall(memo) is not None:
        return
    examples = shown.load()
    with ImageJudge(cache) as judge:
        for part in _parts(examples):
            if stop.is_set():
                return
            for (row, image), verdict in zip(part, judge.judge([image for _, image in part]), strict=True):
                if verdict.problem:
                    at = examples.origin(row) + 1 if isinstance(examples, Rows) else row + 1
                    named = "" if isinstance(image, Path) else f"example {at}: "
                    hint = "`lmmcl data check FILE` lists every bad row"
                    raise UserError(f"{named}{verdict.problem}. {hint}", file=shown.name)
    cache.remember(memo, "")


def _parts(examples: Sequence[Example]) -> Iterator[list[tuple[int, Path | EncodedImage]]]:
    """(row, image) of each image, every file once, some at a time."""
    seen: set[Path] = set()
    part: list[tuple[int, Path | EncodedImage]] = []
    for row, example in enumerate(examples):
        for image in example.images:
            if isinstance(image, EncodedImage) or (isinstance(image, Path) and image not in seen):
                part.append((row, image))
            if isinstance(image, Path):
                seen.add(image)
        if len(part) >= BATCH:
            yield part
            part = []
    if part:
        yield part
