"""The 2 × 2 of image × text (arXiv 2603.14493, section 3): where a model changed, among what is like the taught and what is not.

A benchmark says of its images and of its texts whether they are like those of a skill (`id`) or not (`ood`), by its tags.
After several skills, a side is `id` when it is like that of any skill taught so far, and `ood` when it is unlike all of
them; a benchmark that does not say so of both sides is in no cell. A taught skill's own benchmark is in the cell of
(id, id), one that is taught later in none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lmmcl.evaluation.intervals import quantiles
from lmmcl.evaluation.matrix import ScoreMatrix
from lmmcl.reports.results import Cell, Interval, StageResult, TrialResult
from lmmcl.steps.trial import Trial
from lmmcl.tasks.skills import Benchmark

__all__ = ["GRID", "Cell", "cell_of", "cells", "measure_cells"]

SIDES = ("image", "text")
GRID = (("id", "id"), ("ood", "id"), ("id", "ood"), ("ood", "ood"))
"""(image, text) of the four cells, in the order in which they are listed: rows of texts, columns of images."""


def cells(trial: TrialResult, stage: StageResult | int) -> list[Cell]:
    """The four cells after a stage of `trial` (or the stage of that number), in the order of `GRID`.

    Empty where the sweep's benchmarks have no tags, and at stage 0. Raises KeyError for a stage that was not reached.
    """
    if isinstance(stage, int):
        stage = {result.number: result for result in trial.stages}[stage]
    return list(stage.cells)


def cell_of(benchmark: Benchmark, taught: Sequence[str]) -> tuple[str, str] | None:
    """(image, text), each `id` or `ood`, of a benchmark relative to the skills `taught`; None where its tags do not say."""
    sides = []
    for side in SIDES:
        likenesses = [benchmark.likeness(side, skill) for skill in taught]
        sides.append("id" if "id" in likenesses else "ood" if likenesses and set(likenesses) == {"ood"} else None)
    image, text = sides
    return (image, text) if image and text else None


def measure_cells(trial: Trial, number: int, matrix: ScoreMatrix) -> tuple[Cell, ...]:
    """The four cells after stage `number`; empty at stage 0, and where no held-out benchmark is in any."""
    taught = trial.skills[:number]
    names = [part.name for skill in taught for part in skill.parts]
    places = {benchmark.name: place for benchmark in trial.held_out if (place := cell_of(benchmark, names))}
    if not number or not places:
        return ()
    places = dict.fromkeys((benchmark.name for skill in taught for benchmark in skill.benchmarks), GRID[0]) | places
    known = [name for name in places if matrix.has(number, name) and matrix.has(0, name)]
    by_place = {place: [name for name in known if places[name] == place] for place in GRID}
    intervals = _intervals([asked for asked in by_place.values() if asked], number, matrix)
    return tuple(_cell(place, asked, number, matrix, intervals) for place, asked in by_place.items())


def _cell(
    place: tuple[str, str], asked: Sequence[str], number: int, matrix: ScoreMatrix, intervals: Iterator[Interval]
) -> Cell:
    """The mean change of the benchmarks `asked`, each counting the same."""
    if not asked:
        return Cell(*place, None, None, None, ())
    change = float(np.mean([matrix.score(number, name) - matrix.score(0, name) for name in asked]))
    return Cell(*place, change, *next(intervals), tuple(asked))


def _intervals(groups: Sequence[Sequence[str]], number: int, matrix: ScoreMatrix) -> Iterator[Interval]:
    """Of the mean change of each group, over questions, paired with those at stage 0."""
    names = [name for asked in groups for name in asked]
    now, base = matrix.score_draws(number, names=names), matrix.score_draws(0, names=names)
    if not groups:
        return iter(())
    changes = [sum(now[name] - base[name] for name in asked) / len(asked) for asked in groups]
    low, high = quantiles(np.array(changes), (0.025, 0.975))
    return zip(low.tolist(), high.tolist(), strict=True)
