"""Whether the records of a sweep were made by versions that can give different numbers for the same step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from lmmcl.ledger.provenance import NUMBERS
from lmmcl.ledger.record import Record

UNNAMED = "a version that is not recorded"
"""Records of earlier builds hold fewer versions."""


def differing_versions(records: Iterable[Record]) -> list[str]:
    """A line for each package, engine or image backend in which records differ that say by what they were made."""
    counted: dict[str, Counter[str]] = {}
    for record in records:
        for name, value in _makers(record):
            counted.setdefault(name, Counter())[value] += 1
    return [
        f"records differ in {name}: {_counts(values)}; differences in results may come from that rather than from the settings"
        for name, values in counted.items()
        if len(values) > 1
    ]


def _makers(record: Record) -> Iterator[tuple[str, str]]:
    """By what a record was made, as far as it can change its numbers; nothing of a record that does not say."""
    made = record.fields.get("provenance")
    if not isinstance(made, Mapping):
        return
    backend = record.fields.get("image_backend")
    for name in NUMBERS:
        if name != "torchvision" or backend == "torchvision":
            yield name, str(made[name]) if made.get(name) else UNNAMED
    if backend:
        yield "image_backend", str(backend)
    if "engine" in record.fields:
        yield "engine", str(record["engine"])


def _counts(values: Counter[str]) -> str:
    return ", ".join(f"{value} ({count} record{'' if count == 1 else 's'})" for value, count in sorted(values.items()))
