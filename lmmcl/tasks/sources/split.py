"""A part of the training data held back for the test: the same rows whenever and wherever they are chosen.

Rows, or whole groups of rows: those that show the same picture, or that have the same value in a column. Rows that show several
pictures bring together all rows that show one of them.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmmcl.errors import UserError
from lmmcl.tasks.examples import Example, Rows
from lmmcl.tasks.files.digest import DigestCache, state_of
from lmmcl.tasks.images import EncodedImage, ImageSource

SPLITTING = 1
"""Raised when other rows would be chosen; part of the identity of data that are divided."""
PICTURE = "picture"


@dataclass(frozen=True)
class Split:
    """`share` of the rows are asked, the others taught; `by` keeps groups together: `picture`, or the name of a column."""

    share: float
    by: str | None = None
    seed: int = 0

    def identity(self) -> dict[str, Any]:
        """What enters a key."""
        return {"share": self.share, "by": self.by, "seed": self.seed, "version": SPLITTING}


def groups_of(split: Split, examples: Sequence[Example]) -> list[Any] | None:
    """The group of each row; None where rows are divided one by one."""
    if split.by is None:
        return None
    return _by_picture(examples) if split.by == PICTURE else _by_column(split.by, examples)


def chosen_rows(split: Split, total: int, groups: Sequence[Any] | None = None) -> list[int]:
    """Which of `total` rows are asked, in their order. Raises UserError where nothing would be left to teach or to ask."""
    wanted = max(1, round(split.share * total))
    if groups is None and total > 1:
        rows = list(range(total))
        _shuffle(rows, split.seed)
        return sorted(rows[: min(wanted, total - 1)])
    members: dict[Any, list[int]] = {}
    for row, group in enumerate(range(total) if groups is None else groups):
        members.setdefault(group, []).append(row)
    if len(members) < 2:
        what = "it has one row" if total == 1 else f"all {total} rows are one group by {split.by!r}"
        raise UserError(f"cannot be divided: {what}", place="test")
    order = sorted(members, key=str)
    _shuffle(order, split.seed)
    chosen: list[int] = []
    for group in order[:-1]:  # one is left to teach
        if len(chosen) >= wanted:
            break
        chosen += members[group]
    return sorted(chosen)


def _shuffle(values: list[Any], seed: int) -> None:
    """In place, of `random.random` alone: the one number that Python promises to draw alike in all versions."""
    draw = random.Random(f"split {seed}").random
    for place in range(len(values) - 1, 0, -1):
        other = int(draw() * (place + 1))
        values[place], values[other] = values[other], values[place]


def _by_column(column: str, examples: Sequence[Example]) -> list[str]:
    values = (
        examples.values(column)
        if isinstance(examples, Rows)
        else [example.metadata.get(column) for example in examples]
    )
    for row, value in enumerate(values, start=1):
        if value is None:
            known = ", ".join(examples[row - 1].metadata) or "(none)"
            why = f"row {row} has no value in {column!r}; plain columns beside question and answer: {known}"
            raise UserError(why, place="test.by")
    return [str(value) for value in values]


def _by_picture(examples: Sequence[Example]) -> list[int]:
    """For each row the first row that it shares a picture with, over any number of rows between."""
    digest = _digests(examples)
    first: dict[str, int] = {}
    parents = list(range(len(examples)))

    def root(row: int) -> int:
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = parents[row]
        return row

    for row, example in enumerate(examples):
        for image in example.images:
            one, other = root(first.setdefault(digest(image), row)), root(row)
            parents[max(one, other)] = min(one, other)
    return [root(row) for row in range(len(examples))]


def _digests(examples: Sequence[Example]) -> Callable[[ImageSource], str]:
    files = list(dict.fromkeys(image for example in examples for image in example.images if isinstance(image, Path)))
    known = dict(zip(files, DigestCache().digests([state_of(file) for file in files]), strict=True))

    def digest(image: ImageSource) -> str:
        if isinstance(image, EncodedImage):
            return hashlib.sha256(image.data).hexdigest()
        if not isinstance(image, Path):
            raise TypeError(f"{type(image).__name__} is not a picture of a data file")
        return known[image]

    return digest
