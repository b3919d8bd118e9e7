"""Whether the records of a sweep were made by versions that can give different numbers for the same step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from lmmcl.ledger.provenance import NUMBERS
from lmmcl.ledger.record import Record

UNNAMED = "a version that is not recorded"
"""Records of earlier builds hold fewer versions."""


class VersionCounts:
    """By what records were made, counted as they are read."""

    def __init__(self) -> None:
        self._counted: dict[str, Counter[str]] = {}

    def add(self, record: Record) -> None:
        """Count one more record."""
        for name, value in _makers(record):
            self._counted.setdefault(name, Counter())[value] += 1

    def differing(self) -> list[str]:
        """A line for each package, engine or image backend in which records differ that say by what they were made."""
        return [
            f"records differ in {name}: {_counts(values)}; differences in results may come from that rather than from the settings"
            for name, values in self._counted.items()
            if len(values) > 1
        ]


def differing_versions(records: Iterable[Record]) -> list[str]:
    """See `VersionCounts.differing`."""
    counts = VersionCounts()
    for record in records:
        counts.add(record)
    return counts.differing()


def _makers(record: Record) -> Iterator[tuple[str, str]]:
    """By what a record was made, as far as it can change its numbers; nothing of a record that does not say."""
    provenance = record.fields.get("provenance")
    if not isinstance(provenance, Mapping):
        return
    backend = record.fields.get("image_backend")
    for name in NUMBERS:
        if name != "torchvision" or backend == "torchvision":
            yield name, str(provenance[name]) if provenance.get(name) else UNNAMED
    if backend:
        yield "image_backend", str(backend)
    if "engine" in record.fields:
        yield "engine", str(record["engine"])


def _counts(values: Counter[str]) -> str:
    return ", ".join(f"{value} ({count} record{'' if count == 1 else 's'})" for value, count in sorted(values.items()))
