"""Skills and benchmarks from local files, declared in a sweep without Python.

They enter keys by content: the bytes of the annotation file and of every image that it names. Where the files lie does not
matter; one changed pixel or answer does. The digest is computed when they are declared and travels with them; whoever loads
them compares it again, so that files edited while a sweep runs cannot be recorded under the key of what they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from lmmcl.errors import UserError
from lmmcl.tasks.examples import Example
from lmmcl.tasks.files.content import Content, content_digest, read_content
from lmmcl.tasks.files.fingerprints import Fingerprints, file_fingerprints
from lmmcl.tasks.files.formats import READER_VERSION, read_examples
from lmmcl.tasks.skills import Benchmark, Skill

ANSWER_TOKENS = 16
"""Tokens that an answer may have where a benchmark from files does not say, in YAML as in Python."""


@dataclass(frozen=True)
class LocalBenchmark(Benchmark):
    """A benchmark whose questions lie in a local file; `digest` stands for that file and its images.

    `files` are the file and the folder of its images, `rows` how many it has.
    """

    digest: str = field(kw_only=True)
    rows: int = field(compare=False, kw_only=True)
    files: tuple[Path, Path | None] = field(compare=False, kw_only=True)
    about: tuple[str, ...] = field(default=(), compare=False, kw_only=True)

    def identity(self) -> dict[str, Any]:
        """What of this enters a step's key: no path, but the digest."""
        return {**super().identity(), "data": self.digest}

    def notes(self) -> tuple[str, ...]:
        return self.about

    def known_rows(self) -> int:
        return self.rows

    def fingerprints(self) -> Fingerprints:
        return file_fingerprints(*self.files, self.digest)


@dataclass(frozen=True)
class LocalSkill(Skill):
    """A skill whose training examples lie in a local file; `digest` stands for that file and its images.

    `files` are the file and the folder of its images, `rows` how many it has.
    """

    digest: str = field(kw_only=True)
    rows: int = field(compare=False, kw_only=True)
    files: tuple[Path, Path | None] = field(compare=False, kw_only=True)
    about: tuple[str, ...] = field(default=(), compare=False, kw_only=True)

    def identity(self) -> dict[str, Any]:
        """What of this enters a step's key: no path, but the digest of the training file alone."""
        return {**super().identity(), "data": self.digest}

    def notes(self) -> tuple[str, ...]:
        return self.about

    def known_rows(self) -> int:
        return self.rows

    def fingerprints(self) -> Fingerprints:
        return file_fingerprints(*self.files, self.digest)


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
    content = read_content(file, folder)
    return LocalBenchmark(
        name=name,
        version=READER_VERSION,
        metric=metric,
        load=partial(load_unchanged, file, folder, content.digest),
        max_new_tokens=max_new_tokens,
        description=description or f"{file.name}, scored by {metric}",
        digest=content.digest,
        rows=content.rows,
        files=(file, folder),
        about=_about(file, content),
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
    """A skill from a file of training examples and a file of questions; raises UserError as `local_benchmark` does.

    `images` serves both files. Training rows may share an id.
    """
    benchmark = local_benchmark(name, test=test, images=images, metric=metric, max_new_tokens=max_new_tokens)
    file, folder = Path(train), None if images is None else Path(images)
    content = read_content(file, folder, unique_ids=False)
    return LocalSkill(
        name=name,
        version=READER_VERSION,
        load=partial(load_unchanged, file, folder, content.digest, unique_ids=False),
        benchmark=benchmark,
        description=description or f"{file.name}",
        digest=content.digest,
        rows=content.rows,
        files=(file, folder),
        about=_about(file, content),
    )


def _about(file: Path, content: Content) -> tuple[str, ...]:
    return tuple(f"{file.name}: {note}" for note in content.notes())


def load_unchanged(path: Path, images: Path | None, digest: str, *, unique_ids: bool = True) -> Sequence[Example]:
    """The examples of a file; raises UserError when it or its images are no longer what the digest was computed of."""
    if content_digest(path, images, unique_ids=unique_ids) != digest:
        raise UserError("this file, or an image it names, changed since the sweep was read; run again", file=str(path))
    return read_examples(path, images, unique_ids=unique_ids)
