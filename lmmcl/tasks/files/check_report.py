"""What a data file holds and what is wrong with it: problems in groups, and a summary."""

from __future__ import annotations

import dataclasses
import re
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lmmcl.tasks.readers.row_values import place_in_row

FIRST = 5
"""Rows that a group of problems names."""
MOST_PROBLEMS = 1000
"""Problems that are listed one by one, for `--json`; the groups count all."""
BINS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Longest answer of each bar of the histogram, in words; one bar more for what is longer."""
BAR = 30
_VARIES = re.compile(r"'[^']*'|\"[^\"]*\"|\d+")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `row` counts from 1 (in a .jsonl file: the line); None stands for the file as a whole."""

    row: int | None
    field: str
    message: str

    def __str__(self) -> str:
        where = f"file, {self.field}" if self.row is None else place_in_row(self.row, self.field)
        return f"{where}: {self.message}"


@dataclass(slots=True)
class Group:
    """Problems that are equal but for names and numbers: how many, the first rows, and the first of them in full."""

    field: str
    message: str
    count: int = 0
    rows: list[int] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        if not self.rows:
            return f"file, {self.field}: {self.message}"
        if self.count == 1:
            return f"{place_in_row(self.rows[0], self.field)}: {self.message}"
        more = ", …" if self.count > len(self.rows) else ""
        return f"{self.count} problems like this, in rows {', '.join(map(str, self.rows))}{more}: {self.field}: {self.message}"


@dataclass(slots=True)
class Converted:
    """How many images one kind of conversion is done to, and where the first of them is."""

    images: int
    row: int
    field: str


@dataclass(slots=True)
class Noted:
    """How many texts something is noted of that is not wrong, and where the first of them is."""

    texts: int
    row: int
    field: str


@dataclass(slots=True)
class Tokens:
    """Lengths of some rows as a model reads them, in order; `limit` is what is allowed, and whose limit that is."""

    rows: int
    median: int
    most_rows: int
    longest: int
    limit: int | None = None
    limit_of: str = ""
    cut: int = 0

    def __str__(self) -> str:
        text = f"tokens of {self.rows} rows: median {self.median}, 95 % up to {self.most_rows}, longest {self.longest}"
        if self.limit is None:
            return text
        share = f" ({100 * self.cut / self.rows:.0f} %)" if self.cut else ""
        return f"{text}; {self.limit_of} {self.limit} cuts {self.cut}{share}"


def tokens_of(lengths: Sequence[int], limit: int | None, limit_of: str) -> Tokens | None:
    """The lengths in short; None where none are known."""
    if not lengths:
        return None
    ordered = sorted(lengths)
    middle, most = ordered[(len(ordered) - 1) // 2], ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    cut = sum(length > limit for length in ordered) if limit else 0
    return Tokens(len(ordered), middle, most, ordered[-1], limit, limit_of, cut)


@dataclass(slots=True)
class Report:
    """What a file holds and what is wrong with it.

    `rows` counts all rows; `turns` (messages of any role), `images` (as often as they are shown) and `text_only` (rows
    without image) count those that can be read. `problems` are the first `MOST_PROBLEMS`, `groups` all of them. `conversions` says
    what is done to images before a model is shown them: of how many (as often as they are shown), and the first of them.
    `answers` counts the last turns by their words, `layouts` rows other than dialogues by how they are read.
    """

    file: str
    rows: int = 0
    turns: int = 0
    images: int = 0
    text_only: int = 0
    bad_rows: int = 0
    missing_images: int = 0
    problems: list[Problem] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    conversions: dict[str, Converted] = field(default_factory=dict)
    texts: dict[str, Noted] = field(default_factory=dict)
    answers: list[int] = field(default_factory=lambda: [0] * (len(BINS) + 1))
    layouts: Counter[str] = field(default_factory=Counter)
    smallest: tuple[int, int] | None = None
    largest: tuple[int, int] | None = None
    opened: bool = True
    tokens: Tokens | None = None
    remedies: list[str] = field(default_factory=list)
    _by_kind: dict[tuple[str, str], Group] = field(default_factory=dict)
    _pixels: array[int] = field(default_factory=lambda: array("L"))

    def add_problem(self, problem: Problem, subject: str = "") -> None:
        """Count a problem; `subject` is what its message begins with that differs from row to row (the path of an image)."""
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(problem)
        kind = (_VARIES.sub("#", problem.field), _VARIES.sub("#", problem.message.removeprefix(subject)))
        group = self._by_kind.get(kind)
        if group is None:
            group = self._by_kind[kind] = Group(problem.field, problem.message)
            self.groups.append(group)
        group.count += 1
        if problem.row is not None and len(group.rows) < FIRST and problem.row not in group.rows:
            group.rows.append(problem.row)

    def add_size(self, size: tuple[int, int]) -> None:
        """Count the size of an image that is shown."""
        pixels = size[0] * size[1]
        self._pixels.append(pixels)
        if self.smallest is None or pixels < self.smallest[0] * self.smallest[1]:
            self.smallest = size
        if self.largest is None or pixels > self.largest[0] * self.largest[1]:
            self.largest = size

    @property
    def total(self) -> int:
        """All problems."""
        return sum(group.count for group in self.groups)

    def summary(self) -> str:
        """One line: what the file holds, and how much of it is bad."""
        held = f"{self.rows} rows ({self.text_only} without image), {self.turns} turns, {self.images} images"
        held += "" if self.opened or not self.images else " (not opened)"
        if not self.total:
            return f"{self.file}: {held}; no problems"
        return f"{self.file}: {held}; problems: {self.total}, in {self.bad_rows} rows"

    def details(self) -> list[str]:
        """More of what the file holds: how rows are read, sizes of images, lengths of answers and of rows."""
        lines = [f"read as {layout}: {count} rows" for layout, count in self.layouts.most_common()]
        if self.smallest and self.largest:
            middle = sorted(self._pixels)[(len(self._pixels) - 1) // 2] / 1e6
            spread = f"{_size(self.smallest)} to {_size(self.largest)} pixels, median {middle:.2g} megapixels"
            lines.append(f"images: {spread}")
        if any(self.answers):
            lines += ["answers by words:", *self._histogram()]
        return [*lines, *([str(self.tokens)] if self.tokens else [])]

    def _histogram(self) -> list[str]:
        starts = [1, *(end + 1 for end in BINS)]
        names = [f"{start}" if start == end else f"{start}-{end}" for start, end in zip(starts, BINS, strict=False)]
        bars = list(zip([*names, f">{BINS[-1]}"], self.answers, strict=True))
        used = [at for at, (_, count) in enumerate(bars) if count]
        most = max(self.answers)
        shown = bars[used[0] : used[-1] + 1]
        return [f"  {name:>8} {'#' * round(BAR * count / most):{BAR}} {count}" for name, count in shown]

    def notes(self) -> list[str]:
        """A line for each kind of thing that is not wrong, but shown or read otherwise than the file holds it."""
        images = [
            f"{note.images} {'image' if note.images == 1 else 'images'} {what} (first: row {note.row}, {note.field})"
            for what, note in self.conversions.items()
        ]
        texts = [
            f"{note.texts} {'text' if note.texts == 1 else 'texts'} with {what} (first: row {note.row}, {note.field})"
            for what, note in self.texts.items()
        ]
        return images + texts

    def lines(self) -> list[str]:
        """All of it for a terminal: problems first, the summary last."""
        notes = [f"note: {note}" for note in self.notes()]
        return [*map(str, self.groups), *self.remedies, *notes, *self.details(), self.summary()]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the fields, with names for the bars of the histogram."""
        fields = asdict(self)
        fields["answers"] = {f"<={end}": count for end, count in zip(BINS, self.answers, strict=False) if count}
        if self.answers[-1]:
            fields["answers"][f">{BINS[-1]}"] = self.answers[-1]
        kept = {name: value for name, value in fields.items() if not name.startswith("_")}
        return {**kept, "layouts": dict(self.layouts), "problem_count": self.total}


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
