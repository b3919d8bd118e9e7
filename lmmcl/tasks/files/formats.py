"""Rows of local data, read into Examples.

A row is a dialogue (`conversations` of LLaVA, `messages` of Hugging Face), or has columns that `layouts` read as one. Then:
`image` or `images` (a path, a list of paths, a data URL, absent or null; in parquet also bytes or {"bytes", "path"}), and the
optional `answers` (all texts that a metric accepts) and `id` (else the row number). Other plain columns are metadata.

Where images go. Each `<image>` in a user's turn (or image part) stands for one image, in order; numbers that differ are an
error. A row with images and no placeholder anywhere gets them before its first user turn, as TRL's
`prepare_multimodal_messages` does; LLaVA's own trainer would silently never show them. Placeholders stay where they were
written: moving them to the front is up to the model's chat template. An assistant's turn cannot hold one.

The loader and `lmmcl data check` share this one reading: the loader stops at the first problem, the check lists all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmmcl.errors import UserError, shown
from lmmcl.tasks.examples import Example
from lmmcl.tasks.files.parse_rows import Unreadable, default_images, kind, read_rows
from lmmcl.tasks.images import EncodedImage, ImageSource
from lmmcl.tasks.layouts.columns import AS_NAMED, Columns
from lmmcl.tasks.layouts.dialogue import TOOLS, TURN_FIELDS, Complain, Turns, is_unicode, place_images
from lmmcl.tasks.layouts.image_values import embedded_image
from lmmcl.tasks.layouts.row_layouts import Laid, lay_out
from lmmcl.tasks.readers.row_values import place_in_row

READER_VERSION = 1
"""Part of the identity of local data: raised when the same file would be read into other Examples."""
CHECKS = 3
"""Raised when rows are refused that were read before: what is remembered of a file is looked at again."""

IMAGE_FIELDS = ("image", "images")
OTHER_MEDIA = ("video", "videos", "audio", "audios")
_URL = re.compile(r"^(data:|[A-Za-z][A-Za-z0-9+.-]*://)")


@dataclass(slots=True)
class ParsedRow:
    """What became of one row: an Example, or problems as (field, message)."""

    number: int
    example: Example | None = None
    image_fields: tuple[str, ...] = ()
    turn_fields: tuple[str, ...] = ()
    problems: list[tuple[str, str]] = field(default_factory=list)
    layout: str = ""
    """How the columns were read, where they are not a dialogue already."""
    has_id: bool = False
    """Whether the row says its id; else it is the row number."""

    def complain(self, place: str, message: str) -> None:
        """Add a problem of the row, with its place in it."""
        self.problems.append((place, message))


def read_examples(
    path: Path, images: Path | None = None, *, unique_ids: bool = True, columns: Columns = AS_NAMED
) -> list[Example]:
    """All rows of a file as Examples; images stay paths below `images` (default: the file's folder), none is opened.

    `unique_ids=False` lets rows share an id: LLaVA's own training mixture repeats them, while the id of a question is what
    pairs the answers of two models. Raises UserError naming file, row and field of the first problem.
    """
    return [example for _, example in sound_rows(path, images, unique_ids=unique_ids, columns=columns)]


def sound_rows(
    path: Path, images: Path | None, *, unique_ids: bool, columns: Columns = AS_NAMED
) -> Iterator[tuple[ParsedRow, Example]]:
    """Each row of a file that must be sound; raises UserError as `read_examples` does."""
    seen: dict[str, int] = {}
    for row in parse_rows(path, images, columns):
        if row.example is not None and unique_ids and row.example.id in seen:
            row.complain("id", repeated_id(row.example.id, seen[row.example.id]))
        if row.example is None or row.problems:
            place, message = row.problems[0]
            hint = f". `lmmcl data check {path}` lists every bad row"
            raise UserError(message + hint, file=str(path), place=place_in_row(row.number, place))
        seen[row.example.id] = row.number
        yield row, row.example
    if not seen:
        raise UserError("holds no rows", file=str(path))


def repeated_id(id: str, first: int) -> str:
    """The words for an id that an earlier row has."""
    return f"{shown(id)} is the id of row {first} already"


def parse_rows(path: Path, images: Path | None, columns: Columns = AS_NAMED) -> Iterator[ParsedRow]:
    """All rows of a file, good and bad; raises UserError only where the file or the folder as a whole is unusable."""
    folder = default_images(path) if images is None else images
    if not folder.is_dir():
        raise UserError("no such folder of images", file=str(folder))
    unseen = columns.theirs()
    for number, value in read_rows(path):
        row = ParsedRow(number)
        example = parse_row(value, row, folder, columns)
        row.example = None if row.problems else example
        if unseen and isinstance(value, dict):
            unseen -= value.keys()
        yield row
    if unseen:  # a column that may be missing in some rows is in none
        raise UserError(f"no row has the column {shown(sorted(unseen)[0])} that `columns` names", file=str(path))


def parse_row(row: Any, parsed: ParsedRow, folder: Path, columns: Columns = AS_NAMED) -> Example | None:
    """One row as an Example, or None after at least one complaint to `parsed`."""
    if isinstance(row, Unreadable):
        parsed.complain("row", row.reason)
        return None
    if not isinstance(row, dict):
        parsed.complain("row", f"is {kind(row)} where an object is expected")
        return None
    laid = lay_out(row, columns, parsed.complain)
    if laid is None:
        return None
    parsed.layout = laid.layout
    return _parse_laid(laid, parsed, folder)


def _parse_laid(laid: Laid, parsed: ParsedRow, folder: Path) -> Example | None:
    row, place = laid.row, laid.place
    complain: Complain = parsed.complain
    if laid.places:

        def complain(at: str, message: str) -> None:
            parsed.complain(place(at), message)

    for name in OTHER_MEDIA:
        if row.get(name):
            complain(name, "only text and images are supported")
    if row.get("tools") not in (None, [], "", "[]"):
        complain("tools", TOOLS)
    column = next(name for name in TURN_FIELDS if row.get(name) is not None)
    turns = Turns(column, complain)
    messages = turns.read(row[column])
    turn_fields = [f"{column}[{number}].{turns.text}" for number in range(len(messages))]
    pictures, image_fields = _images(row, turns, folder, complain) or (None, ())
    parsed.turn_fields = tuple(map(place, turn_fields) if laid.places else turn_fields)
    parsed.image_fields = tuple(map(place, image_fields) if laid.places else image_fields)
    if messages and pictures is not None:
        messages = place_images(messages, len(pictures), column, complain)
    id, answers = _id(row.get("id"), parsed.number, complain), _answers(row.get("answers"), complain)
    if turns.accepted:
        parsed.layout = parsed.layout or "several answers"
        if answers:
            complain("answers", "are given twice; also in the last turn")
        answers = _answers(list(turns.accepted), complain)
    parsed.has_id = row.get("id") is not None
    metadata = _metadata(row, complain)
    if not messages or pictures is None:
        return None
    return Example(id=id, messages=tuple(messages), images=pictures, answers=answers, metadata=metadata)


def _images(
    row: dict, turns: Turns, folder: Path, complain: Complain
) -> tuple[tuple[ImageSource, ...], tuple[str, ...]] | None:
    """The images of a row in the order of its placeholders, and the fields that name them; None after a complaint."""
    named = [name for name in IMAGE_FIELDS if row.get(name) not in (None, [], "")]
    if len(named) + bool(turns.inline) > 1:
        return complain(named[-1], f"images are given twice; also in {'a part' if turns.inline else named[0]}")
    sources = turns.inline
    if named:
        value = row[named[0]]
        many = isinstance(value, list)
        sources = [(f"{named[0]}[{i}]", item) for i, item in enumerate(value)] if many else [(named[0], value)]
    read = [(place, _image(source, place, folder, complain)) for place, source in sources]
    known = [(place, picture) for place, picture in read if picture is not None]
    if len(known) < len(read) or not _in_range(turns.order, len(known), complain):
        return None
    if turns.order and len(turns.order) == len(known):
        known = [known[index] for _, index in turns.order]
    return tuple(picture for _, picture in known), tuple(place for place, _ in known)


def _in_range(order: list[tuple[str, int]], images: int, complain: Complain) -> bool:
    """Whether the `index` of image parts (a column of llava-instruct-mix and its like) names each image at most once."""
    used: set[int] = set()
    for place, index in order:
        if not 0 <= index < images or index in used:
            complain(
                place, f"is {index}; expected each of 0 … {images - 1} once" if images else "the row has no images"
            )
            return False
        used.add(index)
    return True


def _image(source: Any, place: str, folder: Path, complain: Complain) -> ImageSource | None:
    if isinstance(source, dict):
        source = source.get("bytes") or source.get("path")
        if not source:
            return complain(place, "is an object with neither 'bytes' nor 'path'")
    if isinstance(source, bytes):
        return EncodedImage(source)
    if not isinstance(source, str):
        return complain(place, f"is {kind(source)} where the path of an image is expected")
    if not source.strip() or "\0" in source:
        return complain(place, "is not a path")
    if (data := embedded_image(source, place, complain)) is not None:
        return EncodedImage(data) if data else None
    source = source.removeprefix("file://")
    if _URL.match(source):
        return complain(place, f"is a URL ({source[:60]!r}); expected the path of a local file")
    return folder / source if is_unicode(source, place, complain) else None


def _id(value: Any, number: int, complain: Complain) -> str:
    if value is None:
        return str(number)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        complain("id", "is empty" if value == "" else f"is {kind(value)} where a text or a whole number is expected")
        return str(number)
    is_unicode(str(value), "id", complain)
    return str(value)


def _answers(value: Any, complain: Complain) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not value:
        complain("answers", f"is {'empty' if value == [] else kind(value)} where a list of texts is expected")
        return ()
    for index, answer in enumerate(value):
        place = f"answers[{index}]"
        if not isinstance(answer, str):
            complain(place, f"is {kind(answer)} where a text is expected")
        elif not answer.strip():
            complain(place, "is empty")
        else:
            is_unicode(answer, place, complain)
    return tuple(value)


def _metadata(row: dict, complain: Complain) -> dict[str, Any]:
    """The plain columns that are nothing else: they come back beside the answers in the sample files."""
    used = {*TURN_FIELDS, *IMAGE_FIELDS, "answers", "id"}
    kept = {
        name: value for name, value in row.items() if name not in used and isinstance(value, str | int | float | bool)
    }
    for name, value in kept.items():
        is_unicode(f"{name}{value if isinstance(value, str) else ''}", repr(name), complain)
    return kept
