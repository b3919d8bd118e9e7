"""Learning and held-out forgetting along the training of a stage, and the moment at which it would best have ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from lmmcl.reports import formatting
from lmmcl.reports.recommend import BUDGET, short_name
from lmmcl.reports.results import StageResult, SweepResults, TrialResult, finite
from lmmcl.reports.seeds import averaged, has_seeds
from lmmcl.reports.tables.small_table import SmallTable

TITLE = "Best moment inside a stage"
HEADS = ("trial", "while taught", "best after", "learning", "held-out forg.", "at the end", "held-out forg. at the end")


@dataclass(frozen=True)
class Moment:
    """After `update` updates of a stage: the measures as if the stage ended there, in points."""

    update: int
    learning: float
    held_out_forgetting: float

    @property
    def least_budget(self) -> float:
        """The smallest budget of held-out forgetting that allows to end here."""
        return -self.held_out_forgetting

    def to_dict(self) -> dict[str, Any]:
        """As reports for other programs hold it."""
        return asdict(self)


def moments(stage: StageResult) -> list[Moment]:
    """The moments of a stage with both measures, its start (update 0) left out."""
    listed = []
    for row in stage.score_curve:
        learning, held_out = finite(row.get("learning")), finite(row.get("held_out_forgetting"))
        if row["update"] and learning is not None and held_out is not None:
            listed.append(Moment(int(row["update"]), learning, held_out))
    return listed


def moment_front(stage: StageResult) -> list[Moment]:
    """The moments that none beats, from the least budget to the largest: each learns more than those before it."""
    front: list[Moment] = []
    for moment in sorted(
        moments(stage), key=lambda candidate: (candidate.least_budget, -candidate.learning, candidate.update)
    ):
        if not front or moment.learning > front[-1].learning:
            front.append(moment)
    return front


def best_moment(stage: StageResult, budget: float = BUDGET) -> Moment | None:
    """The moment that learns most and loses at most `budget` points of the held-out benchmarks; of equal ones that which loses
    less, then the earliest. None where every moment loses more, or nothing was asked inside the stage."""
    allowed = [moment for moment in moment_front(stage) if moment.least_budget <= budget]
    return allowed[-1] if allowed else None


def _stages(results: SweepResults) -> Iterator[tuple[TrialResult, StageResult]]:
    return ((trial, stage) for trial in results.trials for stage in trial.stages if moments(stage))


def _rows(results: SweepResults, budget: float) -> list[list[str]]:
    results = averaged(results) if has_seeds(results) else results
    rows = []
    for trial, stage in _stages(results):
        best, end = best_moment(stage, budget), stage.measures
        last = max(int(row["update"]) for row in stage.score_curve)
        chosen = (
            [f"{best.update} of {last}", formatting.points(best.learning), formatting.points(best.held_out_forgetting)]
            if best
            else [f"none of {last}", "–", "–"]
        )
        ends = [formatting.points(finite(end.get(name))) for name in ("learning", "held_out_forgetting")]
        rows.append([short_name(results, trial), str(stage.skill), *chosen, *ends])
    return rows


def _note(budget: float) -> str:
    chosen = f"The moment that learns most with at most {budget:g} points of held-out forgetting"
    return f"{chosen}; choosing among moments biases it upwards."


def moments_table(results: SweepResults, budget: float = BUDGET) -> Table | None:
    """For the terminal; None where no benchmark was asked inside a stage."""
    return _table(results, budget).terminal()


def moments_markdown(results: SweepResults, budget: float = BUDGET) -> str:
    """The same as Markdown; empty where no benchmark was asked inside a stage."""
    return _table(results, budget).markdown()


def _table(results: SweepResults, budget: float) -> SmallTable:
    return SmallTable(TITLE, HEADS, _rows(results, budget), _note(budget), texts=(0, 1))


def moment_rows(results: SweepResults, budget: float = BUDGET) -> Iterator[dict[str, Any]]:
    """A row for each moment inside a stage: measures with their intervals, scores, and whether it is the best under the budget."""
    for trial in results.trials:
        for stage in trial.stages:
            best = best_moment(stage, budget)
            for row in stage.score_curve:
                yield {
                    "trial": trial.name,
                    "stage": stage.number,
                    "skill": stage.skill,
                    **{**_whole(row), "best": best is not None and row["update"] == best.update},
                    **_ends(stage, int(row["update"])),
                    "trial_key": trial.key,
                }


def _ends(stage: StageResult, update: int) -> dict[str, float]:
    known = stage.moment_intervals.get(update, {}).items()
    return {f"{name}_{side}": end for name, ends in known for side, end in zip(("low", "high"), ends, strict=True)}


def _whole(row: Mapping[str, float]) -> dict[str, Any]:
    return {**row, "update": int(row["update"])}


def front_of(stage: StageResult) -> Sequence[tuple[float, int]]:
    """For the page: [least budget, place in the curve] of the moments to choose from, in that order."""
    places = {int(row["update"]): place for place, row in enumerate(stage.score_curve)}
    return [(moment.least_budget, places[moment.update]) for moment in moment_front(stage)]
