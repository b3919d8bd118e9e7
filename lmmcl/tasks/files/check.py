"""`lmmcl data check`: every bad row of a local data file, by row number and field, before anything is spent on it."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from os.path import isfile
from pathlib import Path

from lmmcl.errors import UserError
from lmmcl.tasks.examples import Example, Role
from lmmcl.tasks.files.check_report import BINS, Converted, Noted, Problem, Report, tokens_of
from lmmcl.tasks.files.formats import ParsedRow, parse_rows, repeated_id
from lmmcl.tasks.files.image_check import ImageJudge
from lmmcl.tasks.files.parse_rows import check_container, default_images
from lmmcl.tasks.files.row_ids import RowIds
from lmmcl.tasks.layouts.columns import AS_NAMED, Columns
from lmmcl.tasks.layouts.placeholders import like_placeholders

BATCH = 256
"""Rows whose images are decoded together: enough to keep the threads busy, few enough to hold embedded images in memory."""
MEASURED = 256
"""Rows whose tokens are counted for a model: a fixed sample."""

TextCheck = Callable[[Role, str], tuple[str | None, Sequence[str]]]
"""What is wrong with the text of a turn for a model (None: nothing), and what is noted of it."""
CountTokens = Callable[[Example], int]
"""How many tokens a model reads a row as, with its images."""


def check_file(
    path: Path,
    images: Path | None = None,
    check_text: TextCheck | None = None,
    *,
    columns: Columns = AS_NAMED,
    open_images: bool = True,
    count_tokens: CountTokens | None = None,
    max_length: int | None = None,
    limit_of: str = "max_length",
    first: int | None = None,
) -> Report:
    """Reads every row and decodes every image (each file once); nothing stops at the first problem.

    Without `open_images` only whether they are there is looked at. `check_text` judges each text as one model's tokenizer reads it,
    `count_tokens` measures a fixed sample of rows and counts those longer than `max_length` as cut.
    `first` is for a look at the first rows alone.

    A repeated id is a problem here although a training file may have it: it makes a file unfit for a test. Raises UserError
    only when there is nothing to check: no such file, an unknown suffix, no such folder of images.
    """
    check_container(path)
    report = Report(file=str(path), opened=open_images)
    folder = default_images(path) if images is None else images
    if not folder.is_dir():
        raise UserError("no such folder of images", file=str(folder))
    ids = RowIds()
    sample = _Sample(MEASURED if count_tokens else 0)
    with ImageJudge() if open_images else nullcontext() as judge:
        for batch in _batches(islice(_rows(path, folder, columns, report), first)):
            for row in batch:
                _count(row, report, ids)
                _read(row, report, check_text)
            _look_at_images(batch, judge, report)
            for row in batch:
                _close(row, report)
                sample.add(row)
    if not report.rows and not report.groups:
        report.add_problem(Problem(None, "rows", "the file holds none"))
    if count_tokens:
        report.tokens = tokens_of(_lengths(sample.rows, count_tokens, report), max_length, limit_of)
    report.problems.sort(key=lambda problem: (problem.row is not None, problem.row or 0))
    report.remedies = _remedies(report, path, folder, sample.missing)
    return report


def _rows(path: Path, folder: Path, columns: Columns, report: Report) -> Iterator[ParsedRow]:
    """The rows as far as the file can be read; where it cannot, that is a problem of the file as a whole."""
    try:
        yield from parse_rows(path, folder, columns)
    except UserError as error:
        report.add_problem(Problem(None, "content", error.message))


def _batches(rows: Iterable[ParsedRow]) -> Iterator[list[ParsedRow]]:
    rows = iter(rows)
    while batch := list(islice(rows, BATCH)):
        yield batch


def _count(row: ParsedRow, report: Report, ids: RowIds) -> None:
    report.rows += 1
    if (example := row.example) is None:
        return
    report.turns += len(example.messages)
    report.images += len(example.images)
    report.text_only += not example.images
    report.answers[bisect_left(BINS, len(example.target.split()))] += 1
    if row.layout:
        report.layouts[row.layout] += 1
    if (first := ids.first_with(example.id, row.number, is_named=row.has_id)) != row.number:
        row.complain("id", repeated_id(example.id, first) + " (a training file may repeat it, a test file may not)")


def _read(row: ParsedRow, report: Report, check_text: TextCheck | None) -> None:
    """Adds what is wrong with the texts of a row, or noted of them."""
    if (example := row.example) is None:
        return
    if check_text is None and not any(map(like_placeholders, _texts(example))):  # the usual row
        return
    texts = [(place, turn.role, turn.content) for place, turn in zip(row.turn_fields, example.messages, strict=True)]
    answers: list[tuple[str, Role, str]] = [
        (f"answers[{number}]", "assistant", answer) for number, answer in enumerate(example.answers)
    ]
    for place, role, text in [*texts, *answers]:
        notes = [f"{placeholder!r}, read as plain text" for placeholder in dict.fromkeys(like_placeholders(text))]
        if check_text is not None:
            problem, more = check_text(role, text)
            notes += more
            if problem:
                row.complain(place, problem)
        for note in notes:
            report.texts.setdefault(note, Noted(0, row.number, place)).texts += 1


def _texts(example: Example) -> Iterator[str]:
    yield from (turn.content for turn in example.messages)
    yield from example.answers


def _look_at_images(batch: list[ParsedRow], judge: ImageJudge | None, report: Report) -> None:
    """Adds to each row what is wrong with its images; a file that many rows show is decoded once."""
    if judge is None:
        for row in batch:
            for place, image in zip(row.image_fields, row.example.images if row.example else (), strict=False):
                if isinstance(image, Path) and not isfile(image):  # noqa: PTH113  # half the time, of 600,000 images
                    row.complain(place, f"{image}: no such file")
        return
    shown = [
        (row, place, image)
        for row in batch
        if row.example
        for place, image in zip(row.image_fields, row.example.images, strict=True)
    ]
    for (row, place, _), verdict in zip(shown, judge.judge([image for _, _, image in shown]), strict=True):
        if verdict.problem:
            row.complain(place, verdict.problem)
        if verdict.size:
            report.add_size(verdict.size)
        for conversion in verdict.conversions:
            report.conversions.setdefault(conversion, Converted(0, row.number, place)).images += 1


def _close(row: ParsedRow, report: Report) -> None:
    """Take the problems of a row into the report."""
    if not row.problems:
        return
    report.bad_rows += 1
    names = [str(image) for image in row.example.images if isinstance(image, Path)] if row.example else []
    for place, message in row.problems:
        subject = next((f"{name}: " for name in names if message.startswith(f"{name}: ")), "")
        report.missing_images += bool(subject) and message.endswith("no such file")
        report.add_problem(Problem(row.number, place, message), subject)


class _Sample:
    """Some sound rows, each as likely as any other and the same whenever a file is checked; and the first missing images."""

    def __init__(self, size: int) -> None:
        self.size, self.seen = size, 0
        self.rows: list[Example] = []
        self.missing: list[Path] = []
        self._draw = random.Random(size)

    def add(self, row: ParsedRow) -> None:
        if row.example is None:
            return
        if row.problems:
            if len(self.missing) < 3:
                self.missing += [image for image in row.example.images if isinstance(image, Path)]
            return
        self.seen += 1
        if len(self.rows) < self.size:
            self.rows.append(row.example)
        elif self.size and (at := int(self._draw.random() * self.seen)) < self.size:
            self.rows[at] = row.example


def _lengths(rows: Sequence[Example], count: CountTokens, report: Report) -> list[int]:
    lengths = []
    for example in rows:
        try:
            lengths.append(count(example))
        except UserError as error:
            report.add_problem(Problem(None, "tokens", str(error)))
    return lengths


def _remedies(report: Report, path: Path, folder: Path, missing: Sequence[Path]) -> list[str]:
    """What to change where every image is missing: their folder is another."""
    if not report.missing_images or report.missing_images < report.images:
        return []
    for near in _folders_near(path):
        for image in missing:
            parts = image.relative_to(folder).parts if image.is_relative_to(folder) else ()
            for start in range(len(parts)):
                if near.joinpath(*parts[start:]).is_file():
                    if start == 0:
                        return [f"no image is below {folder}; they are below {near}: --images {near}"]
                    ours = "/".join(parts[:start])
                    return [f"no image is below {folder}; {near} has them without {ours}/ in their names"]
    return [f"no image is below {folder}; name the folder that their names are relative to: --images FOLDER"]


def _folders_near(path: Path) -> Iterator[Path]:
    """Folders that images of a file often lie in: its own, those in it, the one above and those in that."""
    own = path.absolute() if path.is_dir() else path.absolute().parent
    for folder in dict.fromkeys((own, own.parent)):
        yield folder
        yield from sorted(entry for entry in islice(folder.iterdir(), 1000) if entry.is_dir())
