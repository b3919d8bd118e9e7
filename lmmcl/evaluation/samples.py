"""One answered question, and the file of them: what a person reads to see why a score is what it is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from lmmcl.errors import UserError


@dataclass(frozen=True)
class Sample:
    """A question (its words; the image stays with the benchmark), what counts as right, what was said, score in [0, 1]."""

    id: str
    question: str
    references: tuple[str, ...]
    prediction: str
    score: float
    metadata: Mapping[str, Any] = field(default_factory=dict)


def write_samples(path: Path, samples: Iterable[Sample]) -> None:
    """One JSON object a line, in order. Metadata that JSON has no word for (a path, a date) is written as text."""
    # ASCII: some readers also break lines at the separators that Unicode adds
    encoder, names = json.JSONEncoder(ensure_ascii=True, default=_plain), [field.name for field in fields(Sample)]
    with path.open("w", encoding="utf-8") as file:
        for sample in samples:
            file.write(encoder.encode({name: getattr(sample, name) for name in names}) + "\n")


def _plain(value: Any) -> Any:
    """What stands in JSON for a value that it has no word for."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return dict(value) if isinstance(value, Mapping) else str(value)


def read_samples(path: Path) -> list[Sample]:
    """The samples of a file that write_samples wrote; raises UserError that names file and line for anything else."""
    samples = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
                samples.append(Sample(**{**row, "references": tuple(row["references"])}))
            except (ValueError, TypeError, KeyError) as error:
                raise UserError(f"is not a valid sample: {error}", file=str(path), place=f"line {number}") from error
    return samples
