"""`lmmcl data check`: every bad row of a local data file, by row number and field, before anything is spent on it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from lmmcl.errors import UserError
from lmmcl.tasks.files.formats import EncodedImage, ParsedRow, parse_rows, repeated_id
from lmmcl.tasks.files.parse_rows import check_container

BATCH = 256
"""Rows whose images are decoded together: enough to keep the threads busy, few enough to hold embedded images in memory."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `row` counts from 1 (in a .jsonl file: the line); None stands for the file as a whole."""

    row: int | None
    field: str
    message: str

    def __str__(self) -> str:
        return f"{'file' if self.row is None else f'row {self.row}'}, {self.field}: {self.message}"


@dataclass(slots=True)
class Report:
    """What a file holds and what is wrong with it.

    `rows` counts all rows; `turns` (messages of any role), `images` (as often as they are shown) and `text_only` (rows
    without image) count those that can be read.
    """

    file: str
    rows: int = 0
    turns: int = 0
    images: int = 0
    text_only: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def bad_rows(self) -> int:
        """How many rows have at least one problem."""
        return len({problem.row for problem in self.problems if problem.row is not None})

    def summary(self) -> str:
        """One line: what the file holds, and how much of it is bad."""
        held = f"{self.rows} rows ({self.text_only} without image), {self.turns} turns, {self.images} images"
        if not self.problems:
            return f"{self.file}: {held}; no problems"
        return f"{self.file}: {held}; problems: {len(self.problems)}, in {self.bad_rows} rows"

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the fields, and `bad_rows`."""
        return {**asdict(self), "bad_rows": self.bad_rows}


def check_file(path: Path, images: Path | None = None) -> Report:
    """Reads every row and decodes every image (each file once); nothing stops at the first problem.

    A repeated id is a problem here although a training file may have it: it makes a file unfit for a test. Raises UserError
    only when there is nothing to check: no such file, an unknown suffix, no such folder of images.
    """
    check_container(path)
    report = Report(file=str(path))
    seen_ids: dict[str, int] = {}
    verdicts: dict[Path, str | None] = {}
    folder = path.parent if images is None else images
    if not folder.is_dir():
        raise UserError("no such folder of images", file=str(folder))
    with ThreadPoolExecutor() as pool:
        for batch in _batches(_rows(path, folder, report)):
            for row in batch:
                _count(row, report, seen_ids)
            _decode(batch, pool, verdicts)
            report.problems += [Problem(row.number, *problem) for row in batch for problem in row.problems]
    if not report.rows and not report.problems:
        report.problems.append(Problem(None, "rows", "the file holds none"))
    report.problems.sort(key=lambda problem: (problem.row is not None, problem.row or 0))
    return report


def _rows(path: Path, folder: Path, report: Report) -> Iterator[ParsedRow]:
    """The rows as far as the file can be read; where it cannot, that is a problem of the file as a whole."""
    try:
        yield from parse_rows(path, folder)
    except UserError as error:
        report.problems.append(Problem(None, "content", error.message))


def _batches(rows: Iterable[ParsedRow]) -> Iterator[list[ParsedRow]]:
    rows = iter(rows)
    while batch := list(islice(rows, BATCH)):
        yield batch


def _count(row: ParsedRow, report: Report, seen_ids: dict[str, int]) -> None:
    report.rows += 1
    if (example := row.example) is None:
        return
    report.turns += len(example.messages)
    report.images += len(example.images)
    report.text_only += not example.images
    if (first := seen_ids.setdefault(example.id, row.number)) != row.number:
        row.complain("id", repeated_id(example.id, first) + " (a training file may repeat it, a test file may not)")


def _decode(batch: list[ParsedRow], pool: ThreadPoolExecutor, verdicts: dict[Path, str | None]) -> None:
    """Adds to each row what is wrong with its images; a file that many rows show is decoded once."""
    shown = [
        (row, place, image)
        for row in batch
        if row.example
        for place, image in zip(row.image_fields, row.example.images, strict=True)
    ]
    new = {image for _, _, image in shown if isinstance(image, Path)} - verdicts.keys()
    verdicts.update(zip(new, pool.map(what_is_wrong, new), strict=True))
    embedded = pool.map(what_is_wrong, [image for _, _, image in shown if isinstance(image, EncodedImage)])
    for row, place, image in shown:
        wrong = verdicts[image] if isinstance(image, Path) else next(embedded)
        if wrong:
            row.complain(place, wrong)


def what_is_wrong(image: Path | EncodedImage) -> str | None:
    """Why an image cannot be shown, or None after decoding all of it."""
    from PIL import Image as pil

    named = f"{image}: " if isinstance(image, Path) else ""
    # Beside OSError, PIL's decoders let these through where the bytes of a file contradict one another.
    broken = (
        SyntaxError,
        ValueError,
        TypeError,
        IndexError,
        KeyError,
        EOFError,
        OverflowError,
        struct.error,
        zlib.error,
    )
    try:
        if isinstance(image, EncodedImage):
            image.convert("RGB")
        elif not image.is_file():
            return f"{named}no such file"
        else:
            with pil.open(image) as opened:
                opened.convert("RGB")
    except pil.DecompressionBombError as error:
        return f"{named}{error}"
    except OSError as error:
        return f"{named}is not a readable image: {error.strerror or error}"
    except broken as error:
        return f"{named}is a broken image: {error}"
    return None
