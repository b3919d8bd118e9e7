"""What a local data file holds, by content: a digest for keys, how many rows, and what is done to its images.

The digest stands for the bytes of the annotation file and of every image that it names, wherever they lie. Where one of the
images is shown with other pixels than `DECODING` 1 had, the rule enters too, and so do the layout of columns other than a
dialogue (`LAYOUTS`) and the names that a sweep gives to columns; the digest of all other data stays what it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lmmcl.errors import UserError
from lmmcl.tasks.files.digest import DigestCache, FileState, in_threads, state_of
from lmmcl.tasks.files.formats import CHECKS, READER_VERSION, sound_rows
from lmmcl.tasks.files.parse_rows import container_kind, default_images, digest_of
from lmmcl.tasks.images import DECODING, Conversion, ImageSource, inspect_image
from lmmcl.tasks.layouts.columns import AS_NAMED, Columns
from lmmcl.tasks.layouts.row_layouts import LAYOUTS

Conversions = dict[str, tuple[int, str]]
"""Kind of conversion (the name of a member of `Conversion`) → how many images it is done to, and the place of the first."""


@dataclass(frozen=True)
class Content:
    """`digest` stands for all bytes; `conversions` count the images that are not shown as they are stored."""

    digest: str
    rows: int
    conversions: Mapping[str, tuple[int, str]] = field(default_factory=dict)

    def notes(self) -> list[str]:
        """A line for each kind of conversion, with the first image."""
        return [
            f"{count} {'image' if count == 1 else 'images'} {Conversion[kind]} (first: {place})"
            for kind, (count, place) in self.conversions.items()
        ]


class _Named(NamedTuple):
    """An image file as a row names it."""

    place: str
    name: str


@dataclass(frozen=True)
class _Annotation:
    """What the rows say: how many they are, the image files that they name (once each), and what becomes of embedded images."""

    rows: int
    images: Sequence[_Named]
    embedded: Conversions
    layouts: Sequence[str] = ()


def content_digest(
    path: Path, images: Path | None = None, *, unique_ids: bool = True, columns: Columns = AS_NAMED
) -> str:
    """The digest of `read_content`."""
    return read_content(path, images, unique_ids=unique_ids, columns=columns).digest


def read_content(
    path: Path,
    images: Path | None = None,
    *,
    unique_ids: bool = True,
    columns: Columns = AS_NAMED,
    cache: DigestCache | None = None,
) -> Content:
    """What a file holds. With a warm cache this costs one look at each file's folder entry (microseconds) and reads none.

    Raises UserError naming file, row and field of the first row that is wrong, or whose image is missing or cannot be shown.
    """
    cache = cache or DigestCache()
    folder = default_images(path) if images is None else images
    try:
        annotation = digest_of(path, cache)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror or error}", file=str(path)) from error
    if not folder.is_dir():
        raise UserError("no such folder of images", file=str(folder))
    annotated = _annotation(path, annotation, unique_ids, columns, cache)
    states = [_state(folder / name, path, place) for place, name in annotated.images]
    names = [name for _, name in annotated.images]
    rules = _rules(annotated, columns)
    memo = f"content:{DECODING}:" + _hash([annotation, names, states, *rules])
    if (known := cache.recall(memo)) is not None:
        return _content(json.loads(known))
    content = _read(path, annotation, annotated, states, rules, cache)
    if all(state.settled for state in states):
        cache.remember(memo, json.dumps([content.digest, content.rows, content.conversions]))
    return content


def _content(known: list[Any]) -> Content:
    digest, rows, conversions = known
    return Content(digest, rows, {kind: (count, place) for kind, (count, place) in conversions.items()})


def _rules(annotated: _Annotation, columns: Columns) -> list[Any]:
    """What the rows are read by beside their own names; nothing for dialogues as they are."""
    return (
        [{**({"layouts": LAYOUTS} if annotated.layouts else {}), **columns.identity()}]
        if annotated.layouts or columns
        else []
    )


def _read(
    path: Path,
    annotation: str,
    annotated: _Annotation,
    states: Sequence[FileState],
    rules: Sequence[Any],
    cache: DigestCache,
) -> Content:
    digests = cache.digests(states)
    kinds = _kinds(path, annotated.images, states, digests, cache)
    conversions = dict(annotated.embedded)
    for (place, _), conversion in zip(annotated.images, kinds, strict=True):
        _count(conversions, conversion, place)
    named = sorted(zip((name for _, name in annotated.images), digests, strict=True))
    decoding = [DECODING] if any(Conversion[kind].alters_pixels for kind in conversions) else []
    return Content(_hash([annotation, named, *decoding, *rules]), annotated.rows, conversions)


def _kinds(
    path: Path, images: Sequence[_Named], states: Sequence[FileState], digests: Sequence[str], cache: DigestCache
) -> list[list[str]]:
    """What is done to each image; those not remembered are opened, several at a time."""
    memos = [f"image:{DECODING}:{digest}" for digest in digests]
    known = cache.recall_many(memos)
    new = {memo: at for at, memo in enumerate(memos) if memo not in known}
    inspected = in_threads(lambda at: _inspect(Path(states[at].path), path, images[at].place), list(new.values()))
    fresh = {memo: " ".join(kinds) for memo, kinds in zip(new, inspected, strict=True)}
    cache.remember_many(fresh)
    known |= fresh
    return [known[memo].split() for memo in memos]


def _inspect(image: ImageSource, path: Path, place: str) -> list[str]:
    try:
        return [conversion.name for conversion in inspect_image(image).conversions]
    except UserError as error:
        raise error.at(file=str(path), place=place) from error


def _count(conversions: Conversions, kinds: Iterable[str], place: str) -> None:
    for kind in kinds:
        count, first = conversions.get(kind, (0, place))
        conversions[kind] = (count + 1, first)


def _annotation(path: Path, digest: str, unique_ids: bool, columns: Columns, cache: DigestCache) -> _Annotation:
    """What the annotation file with this digest says."""
    reading = [READER_VERSION, CHECKS, LAYOUTS, DECODING, unique_ids, container_kind(path), columns.identity()]
    memo = f"annotation:{json.dumps(reading)}:{digest}"
    if (known := cache.recall(memo)) is not None:
        rows, images, embedded, layouts = json.loads(known)
        counted = {kind: (count, place) for kind, (count, place) in embedded.items()}
        return _Annotation(rows, [_Named(*entry) for entry in images], counted, layouts)
    rows, first = 0, dict[str, str]()
    inside: Conversions = {}
    layouts = set[str]()
    for row, example in sound_rows(path, Path(), unique_ids=unique_ids, columns=columns):  # paths as they are written
        rows += 1
        if row.layout:
            layouts.add(row.layout)
        for field_, image in zip(row.image_fields, example.images, strict=True):
            place = f"row {row.number}, {field_}"
            if isinstance(image, Path):
                first.setdefault(str(image), place)
            else:
                _count(inside, _inspect(image, path, place), place)
    annotated = _Annotation(rows, [_Named(place, name) for name, place in first.items()], inside, sorted(layouts))
    cache.remember(memo, json.dumps([annotated.rows, annotated.images, annotated.embedded, annotated.layouts]))
    return annotated


def _state(image: Path, path: Path, place: str) -> FileState:
    try:
        return state_of(image)
    except OSError as error:
        raise UserError(f"{image}: {error.strerror or error}", file=str(path), place=place) from error


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, separators=(",", ":")).encode()).hexdigest()
