"""One answered question, and the file of them: what a person reads to see why a score is what it is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
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
    with path.open("w", encoding="utf-8") as file:
        for sample in samples:
            # ASCII: some readers also break lines at the separators that Unicode adds
            file.write(json.dumps(asdict(sample), ensure_ascii=True, default=str) + "\n")


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
