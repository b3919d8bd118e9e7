"""Two engines asked the same questions: how often they say the same, and what that does to the score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lmmcl.evaluation.samples import Sample


@dataclass(frozen=True)
class Parity:
    """Of `asked` questions the same words were said to `same`; scores are means in points; `differing` are (id, first, second)."""

    benchmark: str
    asked: int
    same: int
    first: float
    second: float
    differing: tuple[tuple[str, str, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)

    def __str__(self) -> str:
        share = self.same / self.asked if self.asked else 1.0
        return (
            f"{self.benchmark:20} identical answers to {self.same} of {self.asked} questions ({share:.1%}); score "
            f"{self.first:.1f} and {self.second:.1f} ({self.second - self.first:+.1f})"
        )


def compare_engines(benchmark: str, first: Sequence[Sample], second: Sequence[Sample]) -> Parity:
    """Answers of two engines to the same questions. Raises ValueError when they are not the same questions."""
    pairs = list(zip(first, second, strict=True))
    if any(a.id != b.id for a, b in pairs):
        raise ValueError(f"{benchmark}: the engines answered different questions")
    differing = tuple((a.id, a.prediction, b.prediction) for a, b in pairs if a.prediction != b.prediction)
    return Parity(benchmark, len(pairs), len(pairs) - len(differing), _mean(first), _mean(second), differing)


def _mean(samples: Sequence[Sample]) -> float:
    return 100 * sum(sample.score for sample in samples) / len(samples) if samples else 0.0
