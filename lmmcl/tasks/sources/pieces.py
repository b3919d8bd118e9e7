"""One source of rows: a local file or folder, known by its content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lmmcl.errors import UserError
from lmmcl.tasks.examples import Example
from lmmcl.tasks.files.content import content_digest, read_content
from lmmcl.tasks.files.fingerprints import Fingerprints, file_fingerprints
from lmmcl.tasks.files.formats import read_examples, sound_rows
from lmmcl.tasks.layouts.columns import AS_NAMED, Columns
from lmmcl.tasks.sources.large_tables import is_large_table, stored_examples


class Piece(Protocol):
    """A source of rows."""

    @property
    def name(self) -> str:
        """What messages call it."""

    def identity(self) -> Any:
        """What enters a key."""

    def known_rows(self) -> int | None:
        """How many rows it has, where the identity settles it."""

    def missing(self) -> str | None:
        """Why it cannot be read yet, and how to fetch it."""

    def notes(self) -> tuple[str, ...]:
        """What a plan says of it."""

    def load(self) -> Sequence[Example]:
        """Its rows; raises UserError where they are no longer those of the identity."""

    def fingerprints(self) -> Fingerprints | None:
        """What tells rows that other data hold too."""


@dataclass(frozen=True)
class FilePiece:
    """A local file or folder; `digest` stands for its bytes and those of every image that it names."""

    digest: str
    path: Path = field(compare=False)
    images: Path | None = field(default=None, compare=False)
    columns: Columns = AS_NAMED
    unique_ids: bool = True
    rows: int = field(default=0, compare=False)
    about: tuple[str, ...] = field(default=(), compare=False)

    @property
    def name(self) -> str:
        return self.path.name

    def identity(self) -> str:
        """The digest, wherever the file lies and whatever it is called."""
        return self.digest

    def known_rows(self) -> int:
        return self.rows

    def missing(self) -> None:
        return None

    def notes(self) -> tuple[str, ...]:
        return tuple(f"{self.name}: {note}" for note in self.about)

    def load(self) -> Sequence[Example]:
        options: dict[str, Any] = {"unique_ids": self.unique_ids, "columns": self.columns}
        if content_digest(self.path, self.images, **options) != self.digest:
            why = "this file, or an image it names, changed since the sweep was read; run again"
            raise UserError(why, file=str(self.path))
        if is_large_table(self.path):
            rows = (example for _, example in sound_rows(self.path, self.images, **options))
            if (stored := stored_examples(self.digest, rows)) is not None:
                return stored
        return read_examples(self.path, self.images, **options)

    def fingerprints(self) -> Fingerprints:
        return file_fingerprints(self.path, self.images, self.digest, self.columns)


def file_piece(
    path: Path, images: Path | None = None, *, unique_ids: bool = True, columns: Columns = AS_NAMED
) -> FilePiece:
    """Read a file and its images for its digest (remembered between runs). Raises UserError for the first row that is wrong."""
    content = read_content(path, images, unique_ids=unique_ids, columns=columns)
    about = tuple(content.notes())
    return FilePiece(content.digest, path, images, columns, unique_ids, content.rows, about)
