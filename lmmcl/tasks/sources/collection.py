"""The data of a skill or benchmark: one source or several, with weights, whole or the part of a split."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any, Literal

from lmmcl.errors import UserError
from lmmcl.tasks.examples import Example, Rows
from lmmcl.tasks.files.digest import DigestCache
from lmmcl.tasks.files.fingerprints import Fingerprints, fingerprints_of_files, remembered
from lmmcl.tasks.sampling import Chosen, sample_rows
from lmmcl.tasks.sources.pieces import Piece
from lmmcl.tasks.sources.split import Split, chosen_rows, groups_of

JOINING = 1
"""Raised when the rows of several sources would be other rows, or in another order."""


@dataclass(frozen=True)
class Collection:
    """Sources with their weights; with `split` its test rows or the others.

    A weight says how often each row counts in an epoch: 2 is every row twice, 0.5 a fixed half of them. What is asked is asked
    once, whatever its weight.
    """

    pieces: tuple[tuple[Piece, float], ...]
    split: Split | None = None
    part: Literal["train", "test"] = "train"

    @property
    def is_plain(self) -> bool:
        """Whether it is one source as it is."""
        return len(self.pieces) == 1 and self.split is None and (self.part == "test" or self.pieces[0][1] == 1)

    def identity(self) -> Any:
        """What enters a key: of one source as it is, that source's own."""
        if self.is_plain:
            return self.pieces[0][0].identity()
        weighted = self.part == "train"
        sources = [[piece.identity(), weight] if weighted else piece.identity() for piece, weight in self.pieces]
        split = {"split": self.split.identity()} if self.split else {}
        return {"sources": sources, "version": JOINING, **split, **({"part": self.part} if self.split else {})}

    def known_rows(self) -> int | None:
        """How many rows `load` gives, where the identity settles it without reading the data."""
        return self._known_rows

    @cached_property
    def _known_rows(self) -> int | None:
        sizes = [piece.known_rows() for piece, _ in self.pieces]
        known = [size for size in sizes if size is not None]
        if len(known) < len(sizes) or (self.split is not None and self.split.by is not None):
            return None
        ends = list(accumulate(known))
        asked = _chosen(self.split, ends[-1]) if self.split else ()
        return len(self._rows(ends, asked))

    def missing(self) -> str | None:
        """Why it cannot be read yet."""
        return next((why for piece, _ in self.pieces if (why := piece.missing()) is not None), None)

    def notes(self) -> tuple[str, ...]:
        """What a plan says of the sources."""
        return tuple(note for piece, _ in self.pieces for note in piece.notes())

    def load(self) -> Sequence[Example]:
        """The rows."""
        if self.is_plain:
            return self.pieces[0][0].load()
        joined = Joined([piece.load() for piece, _ in self.pieces])
        return Chosen(joined, self._rows(joined.ends, self._asked(joined)))

    def check_split(self) -> None:
        """Divide the rows now, so that a split that cannot be made is refused at once; nothing where data are not fetched yet."""
        if self.split is not None and self.known_rows() is None and self.missing() is None:
            self.load()

    def _rows(self, ends: Sequence[int], asked: Sequence[int]) -> list[int]:
        """The rows that are taken, each as often as its weight says; `asked` are those of the split."""
        if self.part == "test":
            return list(asked) if self.split else list(range(ends[-1]))
        left_out = set(asked)
        rows: list[int] = []
        for (_, weight), start, end in zip(self.pieces, (0, *ends), ends, strict=False):
            own = [row for row in range(start, end) if row not in left_out]
            whole = int(weight)
            extra = round(len(own) * weight) - whole * len(own)
            rows += own * whole + [own[at] for at in sample_rows(len(own), extra)]
        return rows

    def _asked(self, joined: Joined) -> Sequence[int]:
        if self.split is None:
            return ()
        memo = "split:" + _hash([[piece.identity() for piece, _ in self.pieces], self.split.identity()])
        cache = DigestCache()
        if (known := cache.recall(memo)) is not None:
            indices: list[int] = json.loads(known)
            return indices
        try:
            rows = chosen_rows(self.split, len(joined), groups_of(self.split, joined))
        except UserError as error:
            raise error.at(file=", ".join(piece.name for piece, _ in self.pieces)) from error
        cache.remember(memo, json.dumps(rows))
        return rows

    def fingerprints(self) -> Fingerprints | None:
        """What tells rows that other data hold too; None where the data are not at hand."""
        if self.is_plain:
            return self.pieces[0][0].fingerprints()
        if self.missing():
            return None
        cache = DigestCache()

        def make() -> Fingerprints:
            return fingerprints_of_files(enumerate(self.load(), start=1), cache)

        return remembered(cache, _hash(self.identity()), make)


class Joined(Rows):
    """The rows of several sources, one after another; a row whose id an earlier row has gets `#2` behind it."""

    def __init__(self, sources: Sequence[Sequence[Example]]) -> None:
        self.sources = sources
        self.ends = list(accumulate(map(len, sources)))
        self.renamed = self._renamed()

    def _renamed(self) -> Mapping[int, str]:
        seen: dict[str, int] = {}
        renamed: dict[int, str] = {}
        for row, id in enumerate(id for source in self.sources for id in _ids(source)):
            seen[id] = seen.get(id, 0) + 1
            if seen[id] > 1:
                renamed[row] = f"{id}#{seen[id]}"
        return renamed

    def __len__(self) -> int:
        return self.ends[-1]

    def row(self, index: int) -> Example:
        source = bisect_right(self.ends, index)
        example = self.sources[source][index - (self.ends[source - 1] if source else 0)]
        return replace(example, id=self.renamed[index]) if index in self.renamed else example

    def values(self, field: str) -> list[Any]:
        return [
            value
            for source in self.sources
            for value in (
                source.values(field)
                if isinstance(source, Rows)
                else [example.metadata.get(field) for example in source]
            )
        ]


def _ids(source: Sequence[Example]) -> list[str]:
    return source.values("id") if isinstance(source, Rows) else [example.id for example in source]


@lru_cache(maxsize=8)
def _chosen(split: Split, total: int) -> tuple[int, ...]:
    return tuple(chosen_rows(split, total))


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
