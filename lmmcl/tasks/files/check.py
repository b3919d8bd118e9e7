"""`lmmcl data check`: every bad row of a local data file, by row number and field, before anything is spent on it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from lmmcl.errors import UserError
from lmmcl.tasks.examples import Role
from lmmcl.tasks.files.formats import ParsedRow, parse_rows, repeated_id
from lmmcl.tasks.files.parse_rows import check_container
from lmmcl.tasks.files.placeholders import like_placeholders
from lmmcl.tasks.images import MAX_PIXELS, Conversion, EncodedImage, ImageSource, inspect_image, open_image

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


TextCheck = Callable[[Role, str], tuple[str | None, Sequence[str]]]
"""What is wrong with the text of a turn for a model (None: nothing), and what is noted of it."""


@dataclass(slots=True)
class Report:
    """What a file holds and what is wrong with it.

    `rows` counts all rows; `turns` (messages of any role), `images` (as often as they are shown) and `text_only` (rows
    without image) count those that can be read. `conversions` says what is done to images before a model is shown them: of
    how many (as often as they are shown), and the first of them.
    """

    file: str
    rows: int = 0
    turns: int = 0
    images: int = 0
    text_only: int = 0
    problems: list[Problem] = field(default_factory=list)
    conversions: dict[str, Converted] = field(default_factory=dict)
    texts: dict[str, Noted] = field(default_factory=dict)

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

    def notes(self) -> list[str]:
        """A line for each kind of thing that is not wrong, but shown or read otherwise than the file holds it."""
        images = [
            f"{each.images} {'image' if each.images == 1 else 'images'} {what} (first: row {each.row}, {each.field})"
            for what, each in self.conversions.items()
        ]
        texts = [
            f"{each.texts} {'text' if each.texts == 1 else 'texts'} with {what} (first: row {each.row}, {each.field})"
            for what, each in self.texts.items()
        ]
        return images + texts

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the fields, and `bad_rows`."""
        return {**asdict(self), "bad_rows": self.bad_rows}


def check_file(path: Path, images: Path | None = None, check_text: TextCheck | None = None) -> Report:
    """Reads every row and decodes every image (each file once); nothing stops at the first problem.

    `check_text` judges each text as one model's tokenizer reads it.

    A repeated id is a problem here although a training file may have it: it makes a file unfit for a test. Raises UserError
    only when there is nothing to check: no such file, an unknown suffix, no such folder of images.
    """
    check_container(path)
    report = Report(file=str(path))
    seen_ids: dict[str, int] = {}
    verdicts: dict[Path, Verdict] = {}
    folder = path.parent if images is None else images
    if not folder.is_dir():
        raise UserError("no such folder of images", file=str(folder))
    budget = PixelBudget(MAX_PIXELS)
    with ThreadPoolExecutor() as pool:
        for batch in _batches(_rows(path, folder, report)):
            for row in batch:
                _count(row, report, seen_ids)
                _read(row, report, check_text)
            _decode(batch, pool, verdicts, budget, report)
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


def _read(row: ParsedRow, report: Report, check_text: TextCheck | None) -> None:
    """Adds what is wrong with the texts of a row, or noted of them."""
    if (example := row.example) is None:
        return
    texts = [(place, turn.role, turn.content) for place, turn in zip(row.turn_fields, example.messages, strict=True)]
    answers: list[tuple[str, Role, str]] = [
        (f"answers[{number}]", "assistant", answer) for number, answer in enumerate(example.answers)
    ]
    for place, role, text in [*texts, *answers]:
        notes = [f"{found!r}, read as plain text" for found in dict.fromkeys(like_placeholders(text))]
        if check_text is not None:
            problem, more = check_text(role, text)
            notes += more
            if problem:
                row.complain(place, problem)
        for note in notes:
            report.texts.setdefault(note, Noted(0, row.number, place)).texts += 1


def _decode(
    batch: list[ParsedRow],
    pool: ThreadPoolExecutor,
    verdicts: dict[Path, Verdict],
    budget: PixelBudget,
    report: Report,
) -> None:
    """Adds to each row what is wrong with its images; a file that many rows show is decoded once."""

    def judge(image: ImageSource) -> Verdict:
        return examine(image, budget)

    shown = [
        (row, place, image)
        for row in batch
        if row.example
        for place, image in zip(row.image_fields, row.example.images, strict=True)
    ]
    new = {image for _, _, image in shown if isinstance(image, Path)} - verdicts.keys()
    verdicts.update(zip(new, pool.map(judge, new), strict=True))
    embedded = pool.map(judge, [image for _, _, image in shown if isinstance(image, EncodedImage)])
    for row, place, image in shown:
        verdict = verdicts[image] if isinstance(image, Path) else next(embedded)
        if verdict.problem:
            row.complain(place, verdict.problem)
        for conversion in verdict.conversions:
            report.conversions.setdefault(conversion, Converted(0, row.number, place)).images += 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong with an image (None: nothing), and what is done to it before it is shown."""

    problem: str | None
    conversions: tuple[Conversion, ...] = ()


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
    return Verdict(None, facts.conversions)
