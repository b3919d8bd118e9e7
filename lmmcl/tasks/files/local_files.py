"""Skills and benchmarks of your own data, declared in a sweep without Python.

Local files enter keys by content: the bytes of the annotation file and of every image that it names. Where the files lie does
not matter; one changed pixel or answer does. The digest is computed when they are declared and travels with them; whoever loads
them compares it again, so that files edited while a sweep runs cannot be recorded under the key of what they were.
Data sets of the hub enter by id, split and commit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmmcl.errors import UserError
from lmmcl.tasks.files.fingerprints import Fingerprints
from lmmcl.tasks.files.formats import READER_VERSION
from lmmcl.tasks.layouts.columns import Columns, columns_of
from lmmcl.tasks.metrics.judge import NAME as JUDGE
from lmmcl.tasks.metrics.judge import Judge
from lmmcl.tasks.metrics.metric import Metric, get_metric
from lmmcl.tasks.skills import Benchmark, Data, Skill
from lmmcl.tasks.sources.collection import Collection
from lmmcl.tasks.sources.pieces import file_piece

ANSWER_TOKENS = 16
"""Tokens that an answer may have where a benchmark from files does not say, in YAML as in Python."""


@dataclass(frozen=True)
class OwnRows(Data):
    """What skills and benchmarks of your own data share: the collection of their rows."""

    data: Collection = field(kw_only=True)

    def identity(self) -> dict[str, Any]:
        """What of this enters a step's key: no path, but what stands for the content of these rows alone."""
        return {**super().identity(), "data": self.data.identity()}

    def missing(self) -> str | None:
        kind, why = "skill" if isinstance(self, Skill) else "benchmark", self.data.missing()
        return None if why is None else f"the data of {kind} {self.name} is not prepared: {why}"

    def notes(self) -> tuple[str, ...]:
        return self.data.notes()

    def known_rows(self) -> int | None:
        return self.data.known_rows()

    def fingerprints(self) -> Fingerprints | None:
        return self.data.fingerprints()


@dataclass(frozen=True)
class LocalBenchmark(OwnRows, Benchmark):
    """A benchmark whose questions are data of your own."""

    judged_by: Judge | None = field(default=None, kw_only=True)

    @property
    def judge(self) -> Judge | None:
        return self.judged_by

    def scoring(self) -> Metric:
        return self.judged_by.scoring() if self.judged_by else super().scoring()


@dataclass(frozen=True)
class LocalSkill(OwnRows, Skill):
    """A skill whose training examples are data of your own."""


def own_benchmark(
    name: str, data: Collection, *, metric: str | Judge, max_new_tokens: int = ANSWER_TOKENS, description: str = ""
) -> LocalBenchmark:
    """A benchmark of questions with answers, scored by a metric or a judge. Raises UserError for an unknown metric."""
    judge = metric if isinstance(metric, Judge) else None
    metric = JUDGE if isinstance(metric, Judge) else get_metric(metric).name
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens is {max_new_tokens}; allowed: 1 and more", place=name)
    return LocalBenchmark(
        name=name,
        version=READER_VERSION,
        metric=metric,
        load=data.load,
        max_new_tokens=max_new_tokens,
        description=description or f"{_names(data)}, scored by {f'the judge {judge.label}' if judge else metric}",
        data=data,
        judged_by=judge,
    )


def own_skill(name: str, data: Collection, benchmark: Benchmark, description: str = "") -> LocalSkill:
    """A skill of training data and a benchmark."""
    return LocalSkill(
        name=name,
        version=READER_VERSION,
        load=data.load,
        benchmark=benchmark,
        description=description or _names(data),
        data=data,
    )


def _names(data: Collection) -> str:
    return ", ".join(piece.name for piece, _ in data.pieces)


def local_benchmark(
    name: str,
    *,
    test: str | Path,
    images: str | Path | None = None,
    metric: str,
    max_new_tokens: int = ANSWER_TOKENS,
    description: str = "",
    columns: Mapping[str, str | Sequence[str]] | None = None,
    question: str | None = None,
) -> LocalBenchmark:
    """A benchmark from a file of questions with answers; `images` is the folder of its images (default: the file's).

    `columns` says which column is which (ours: theirs), `question` is for rows that hold none.
    Reads the file and its images for the digest (remembered between runs). Raises UserError for an unknown metric, a missing
    file or image, and the first row that is wrong. Paths are kept as given: make them absolute for workers elsewhere.
    """
    data = _one_file(test, images, columns_of(columns, question), "test")
    return own_benchmark(name, data, metric=metric, max_new_tokens=max_new_tokens, description=description)


def local_skill(
    name: str,
    *,
    train: str | Path,
    test: str | Path,
    images: str | Path | None = None,
    metric: str,
    max_new_tokens: int = ANSWER_TOKENS,
    description: str = "",
    columns: Mapping[str, str | Sequence[str]] | None = None,
    question: str | None = None,
) -> LocalSkill:
    """A skill from a file of training examples and a file of questions; raises UserError as `local_benchmark` does.

    `images`, `columns` and `question` serve both files. Training rows may share an id.
    """
    named = columns_of(columns, question)
    asked = _one_file(test, images, named, "test")
    benchmark = own_benchmark(name, asked, metric=metric, max_new_tokens=max_new_tokens)
    return own_skill(name, _one_file(train, images, named, "train"), benchmark, description)


def _one_file(file: str | Path, images: str | Path | None, columns: Columns, part: Any) -> Collection:
    folder = None if images is None else Path(images)
    piece = file_piece(Path(file), folder, unique_ids=part == "test", columns=columns)
    return Collection(((piece, 1.0),), part=part)
