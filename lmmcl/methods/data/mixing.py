"""Data of several sources in one sequence: skills named by a setting, and an order of (source, row) pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, PlainSerializer, PlainValidator, ValidationInfo

from lmmcl.errors import UserError, unknown
from lmmcl.tasks import get_skill, skill_names
from lmmcl.tasks.examples import Example, Rows
from lmmcl.tasks.files.fingerprints import Fingerprints
from lmmcl.tasks.files.formats import READER_VERSION
from lmmcl.tasks.layouts.columns import columns_of
from lmmcl.tasks.skills import Skill
from lmmcl.tasks.sources.pieces import FilePiece, file_piece

FILE_KEYS = ("train", "images", "columns", "question")
"""What a source from a file may say, as a skill of a sweep does."""


@dataclass(frozen=True)
class DataFile:
    """Training examples in a local file, known by its content and that of its images."""

    name: str
    piece: FilePiece

    def identity(self) -> dict[str, Any]:
        """What enters a key: the content, wherever it lies and whatever it is called."""
        return {"version": READER_VERSION, "data": self.piece.identity()}

    def load(self) -> Sequence[Example]:
        """Its rows; raises UserError when they have changed."""
        return self.piece.load()

    def notes(self) -> tuple[str, ...]:
        """What is done to its images before a model is shown them."""
        return self.piece.about

    def fingerprints(self) -> Fingerprints:
        """What tells rows that other data hold too."""
        return self.piece.fingerprints()


def _source(value: Any, info: ValidationInfo) -> Skill | DataFile:
    """A skill by its name (the sweep's own or one that ships), or a file as {train: …, images: …}."""
    if isinstance(value, Skill | DataFile):
        return value
    context = info.context or {}
    if isinstance(value, str):
        own = context.get("skills", {})
        if value not in own and value not in skill_names():
            raise UserError(unknown("skill", value, [*skill_names(), *own]), place=info.field_name)
        return own[value] if value in own else get_skill(value)
    if not isinstance(value, Mapping):
        raise ValueError("a source is the name of a skill, or {train: file, images: folder}")
    for key in value:
        if key not in FILE_KEYS:
            raise UserError(unknown("key", str(key), FILE_KEYS), place=info.field_name)
    if not isinstance(value.get("train"), str) or not isinstance(value.get("images", ""), str):
        raise ValueError("a file is {train: path} or {train: path, images: path of a folder}")
    return _data_file(context.get("folder", Path()), value)


def _data_file(folder: Path, value: Mapping[str, Any]) -> DataFile:
    file = (folder / value["train"]).absolute()
    images = None if value.get("images") is None else (folder / value["images"]).absolute()
    columns = columns_of(value.get("columns"), value.get("question"))
    return DataFile(file.stem, file_piece(file, images, unique_ids=False, columns=columns))


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str | Mapping | Skill | DataFile) else value


Source = Annotated[Any, PlainValidator(_source), PlainSerializer(lambda source: source.identity())]
"""A setting that names a skill or a file; it is a Skill or a DataFile, and enters the key by its identity."""

Sources = Annotated[tuple[Source, ...], BeforeValidator(_several)]
"""A setting that names one or several; a single one may stand without brackets."""


@dataclass(frozen=True)
class Mix(Rows):
    """Row `rows[i]` of source `which[i]`, for each i; nothing is read or drawn before it is asked for.

    `identities` tell what the sources are, so that an encoding of a row is found again in another mix; None is the stage's own.
    """

    sources: Sequence[Sequence[Example]]
    identities: Sequence[Mapping[str, Any] | None]
    which: NDArray[np.integer]
    rows: NDArray[np.integer]

    def __len__(self) -> int:
        return len(self.which)

    def row(self, index: int) -> Example:
        return self.sources[int(self.which[index])][int(self.rows[index])]


def flatten(mix: Mix) -> Mix:
    """The same rows in the same order, where sources that are mixes themselves are taken apart."""
    sources: list[Sequence[Example]] = []
    identities: list[Mapping[str, Any] | None] = []
    which, rows = np.empty(len(mix), np.int64), np.empty(len(mix), np.int64)
    for number, (source, identity) in enumerate(zip(mix.sources, mix.identities, strict=True)):
        at = np.flatnonzero(mix.which == number)
        if isinstance(source, Mix):
            inner = flatten(source)
            which[at] = inner.which[mix.rows[at]] + len(sources)
            rows[at] = inner.rows[mix.rows[at]]
            sources += inner.sources
            identities += inner.identities
        else:
            which[at], rows[at] = len(sources), mix.rows[at]
            sources.append(source)
            identities.append(identity)
    return Mix(sources, identities, which, rows)
