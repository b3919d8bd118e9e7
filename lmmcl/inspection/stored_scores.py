"""What recorded checkpoints scored, so that scores beside each other are of the same questions asked in the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmmcl.inspection.stored_lineage import identity_of
from lmmcl.ledger import Ledger
from lmmcl.steps.keys import canonical_json


@dataclass(frozen=True)
class StoredScore:
    """A score in points. `asked` is what was asked, and how: two scores of a benchmark are comparable where it is equal."""

    benchmark: str
    score: float
    questions: int
    metric: str
    asked: str
    evaluation: Mapping[str, Any]
    finished: float


def stored_scores(ledger: Ledger, path: str) -> list[StoredScore]:
    """All scores of the checkpoint in `path`: of a benchmark several, where sweeps ask it differently (`limit`, say)."""
    scores = []
    for step in ledger.paths(f"scores/{path.removeprefix('checkpoints/')}"):
        record = ledger.read(step)
        if record is not None:
            identity = identity_of(ledger, step)
            asked = {name: value for name, value in identity.items() if name not in ("key", "kind", "parents")}
            scores.append(
                StoredScore(
                    benchmark=record["label"],
                    score=record["score"],
                    questions=len(record.fields.get("sample_scores", ())),
                    metric=str(identity["benchmark"]["metric"]["name"]),
                    asked=canonical_json(asked),
                    evaluation=identity.get("evaluation", {}),
                    finished=float((record.fields.get("provenance") or {}).get("finished") or 0),
                )
            )
    return scores


def comparable_scores(
    rows: Sequence[Sequence[StoredScore]], evaluation: Mapping[str, Any] | None = None
) -> list[dict[str, StoredScore]]:
    """Of each row (a checkpoint) one score a benchmark, asked alike in all rows.

    Where there are several ways, that of `evaluation` (the settings of a trial) is taken; else one that the last row has, that
    most rows have, that was recorded last.
    """
    ways: dict[str, dict[str, tuple[Any, ...]]] = {}
    for row in rows:
        for score in row:
            own = ways.setdefault(score.benchmark, {})
            *_, count, finished = own.get(score.asked, (0, 0.0))
            is_trials = evaluation is not None and score.evaluation == evaluation
            own[score.asked] = (is_trials, row is rows[-1], count + 1, max(finished, score.finished))
    chosen = {benchmark: max(own, key=lambda asked: (own[asked], asked)) for benchmark, own in ways.items()}
    return [{score.benchmark: score for score in row if score.asked == chosen[score.benchmark]} for row in rows]
