"""Skills and benchmarks from local files, declared in a sweep without Python.

They enter keys by content: the bytes of the annotation file and of every image that it names. Where the files lie does not
matter; one changed pixel or answer does. The digest is computed when they are declared and travels with them; whoever loads
them compares it again, so that files edited while a sweep runs cannot be recorded under the key of what they were.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from lmmcl.errors import UserError
from lmmcl.tasks.examples import Example
from lmmcl.tasks.files.digest import DigestCache, FileState, state_of
from lmmcl.tasks.files.formats import READER_VERSION, read_examples, sound_rows
from lmmcl.tasks.skills import Benchmark, Skill

ANSWER_TOKENS = 16
"""Tokens that an answer may have where a benchmark from files does not say, in YAML as in Python."""


@dataclass(frozen=True)
class LocalBenchmark(Benchmark):
    """A benchmark whose questions lie in a local file; `digest` stands for that file and its images."""

    digest: str = field(kw_only=True)

    def identity(self) -> dict[str, Any]:
        """What of this enters a step's key: no path, but the digest."""
        return {**super().identity(), "data": self.digest}


@dataclass(frozen=True)
class LocalSkill(Skill):
    """A skill whose training examples lie in a local file; `digest` stands for that file and its images."""

    digest: str = field(kw_only=True)

    def identity(self) -> dict[str, Any]:
        """What of this enters a step's key: no path, but the digest of the training file alone."""
        return {**super().identity(), "data": self.digest}


def local_benchmark(
    name: str,
    *,
    test: str | Path,
    images: str | Path | None = None,
    metric: str,
    max_new_tokens: int = ANSWER_TOKENS,
    description: str = "",
) -> LocalBenchmark:
    """A benchmark from a file of questions with answers; `images` is the folder of its images (default: the file's).

    Reads the file and its images for the digest (remembered between runs). Raises UserError for an unknown metric, a missing
    file or image, and the first row that is wrong. Paths are kept as given: make them absolute for workers elsewhere.
    """
    from lmmcl.tasks.metrics.metric import get_metric

    get_metric(metric)
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens is {max_new_tokens}; allowed: 1 and more", place=name)
    file, folder = Path(test), None if images is None else Path(images)
    digest = content_digest(file, folder)
    return LocalBenchmark(
        name=name,
        version=READER_VERSION,
        metric=metric,
        load=partial(load_unchanged, file, folder, digest),
        max_new_tokens=max_new_tokens,
        description=description or f"{file.name}, scored by {metric}",
        digest=digest,
    )


def local_skill(
    name: str,
    *,
    train: str | Path,
    test: str | Path,
    images: str | Path | None = None,
    metric: str,
    max_new_tokens: int = ANSWER_TOKENS,
    description: str = "",
) -> LocalSkill:
    """A skill from a file to be taught and a file to be asked; raises UserError as `local_benchmark` does.

    `images` serves both files. Training rows may share an id.
    """
    benchmark = local_benchmark(name, test=test, images=images, metric=metric, max_new_tokens=max_new_tokens)
    file, folder = Path(train), None if images is None else Path(images)
    digest = content_digest(file, folder, unique_ids=False)
    return LocalSkill(
        name=name,
        version=READER_VERSION,
        load=partial(load_unchanged, file, folder, digest, unique_ids=False),
        benchmark=benchmark,
        description=description or f"{file.name}",
        digest=digest,
    )


def load_unchanged(path: Path, images: Path | None, digest: str, *, unique_ids: bool = True) -> Sequence[Example]:
    """The examples of a file; raises UserError when it or its images are no longer what the digest was computed of."""
    if content_digest(path, images, unique_ids=unique_ids) != digest:
        raise UserError("this file, or an image it names, changed since the sweep was read; run again", file=str(path))
    return read_examples(path, images, unique_ids=unique_ids)


def content_digest(
    path: Path, images: Path | None = None, *, unique_ids: bool = True, cache: DigestCache | None = None
) -> str:
    """SHA-256 that stands for the bytes of an annotation file and of every image that it names, wherever they lie.

    With a warm cache this costs one look at each file's folder entry (microseconds) and reads none. Raises UserError naming
    file, row and field of the first row that is wrong, or whose image is missing.
    """
    cache = cache or DigestCache()
    folder = path.parent if images is None else images
    try:
        annotation = cache.digests([state_of(path)])[0]
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror or error}", file=str(path)) from error
    if not folder.is_dir():
        raise UserError("no such folder of images", file=str(folder))
    references = _references(path, annotation, unique_ids, cache)
    states = [_state(folder / name, path, place) for place, name in references]
    names = [name for _, name in references]
    memo = "images:" + _hash([annotation, names, states])
    if (digest := cache.recall(memo)) is None:
        digest = _hash([annotation, sorted(zip(names, cache.digests(states), strict=True))])
        if all(state.settled for state in states):
            cache.remember(memo, digest)
    return digest


def _references(path: Path, annotation: str, unique_ids: bool, cache: DigestCache) -> list[tuple[str, str]]:
    """(place, path as written) of each image file that an annotation file names, once each, in file order."""
    memo = f"references:{READER_VERSION}:{unique_ids}:{path.suffix.lower()}:{annotation}"
    if (known := cache.recall(memo)) is not None:
        return json.loads(known)
    first: dict[str, str] = {}
    for row, example in sound_rows(
        path, Path(), unique_ids=unique_ids
    ):  # below no folder: the paths as they are written
        for place, image in zip(row.image_fields, example.images, strict=True):
            if isinstance(image, Path):
                first.setdefault(str(image), f"row {row.number}, {place}")
    references = [(place, name) for name, place in first.items()]
    cache.remember(memo, json.dumps(references))
    return references


def _state(image: Path, path: Path, place: str) -> FileState:
    try:
        return state_of(image)
    except OSError as error:
        raise UserError(f"{image}: {error.strerror or error}", file=str(path), place=place) from error


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, separators=(",", ":")).encode()).hexdigest()
