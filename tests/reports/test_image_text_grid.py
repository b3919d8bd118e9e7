"""The 2 × 2 of image × text: which benchmarks are in which cell, and how far each cell moved."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from made import made_benchmark, made_trial
from synthetic_results import make_trial

from lmmcl.evaluation.matrix import ScoreMatrix
from lmmcl.reports.image_text_grid import GRID, Cell, cell_of, cells, measure_cells
from lmmcl.reports.results import SweepResults
from lmmcl.reports.seeds import mean_stage
from lmmcl.reports.tables.export import as_json
from lmmcl.steps.trial import Trial

ID_OOD = {"image": "id", "text": "ood"}


def tagged(**tags: dict[str, Any]) -> Trial:
    """Two skills, first and second; a held-out benchmark for each entry."""
    trial = made_trial(held_out=tuple(tags))
    return dataclasses.replace(
        trial, held_out=tuple(dataclasses.replace(made_benchmark(name), tags=tags[name]) for name in tags)
    )


def scored(trial: Trial, changes: dict[str, list[float]]) -> ScoreMatrix:
    """Benchmarks at one half before, and moved by a number of points after each stage; 100 questions."""
    matrix = ScoreMatrix([skill.benchmark.name for skill in trial.skills], [each.name for each in trial.held_out])
    for stage in range(3):
        row = {}
        for name in matrix.benchmarks:
            right = 50 + (changes.get(name, [0, 0])[stage - 1] if stage else 0)
            row[name] = (np.arange(100) < right).astype(float)
        matrix.add(stage, row)
    return matrix


def test_each_cell_is_the_mean_change_of_its_benchmarks_with_an_interval_around_it() -> None:
    trial = tagged(a=ID_OOD, b=ID_OOD, c={"image": "ood", "text": "ood"})
    matrix = scored(trial, {"first": [30, 0], "second": [-40, 0], "a": [-10, 0], "b": [-20, 0], "c": [-2, 0]})
    found = {(cell.image, cell.text): cell for cell in measure_cells(trial, 1, matrix)}
    assert tuple(found) == GRID
    assert found["id", "ood"].benchmarks == ("a", "b")
    assert found["id", "ood"].change == pytest.approx(-15)
    assert found["id", "id"].benchmarks == ("first",), "what is taught later is in no cell"
    assert found["id", "id"].change == pytest.approx(30)
    assert found["ood", "ood"].change == pytest.approx(-2)
    for place in (("id", "ood"), ("id", "id"), ("ood", "ood")):
        cell = found[place]
        assert cell.low < cell.change < cell.high
    assert found["ood", "id"] == Cell("ood", "id", None, None, None, ())


def test_the_interval_is_that_of_paired_questions() -> None:
    """Of 100 questions, 10 fall and none rise: the resampled change is minus a binomial share of 0.1."""
    trial = tagged(a=ID_OOD)
    (cell,) = [each for each in measure_cells(trial, 1, scored(trial, {"a": [-10, 0]})) if each.benchmarks == ("a",)]
    share = np.random.default_rng(1).binomial(100, 0.1, 100_000)
    assert (cell.low, cell.high) == pytest.approx((-np.quantile(share, 0.975), -np.quantile(share, 0.025)), abs=1.1)


def test_tags_are_relative_to_a_skill_and_what_any_taught_skill_is_like_is_in_distribution() -> None:
    relative = dataclasses.replace(
        made_benchmark("b"),
        tags={"first": {"image": "id", "text": "ood"}, "second": {"image": "ood", "text": "id"}},
    )
    assert cell_of(relative, ["first"]) == ("id", "ood")
    assert cell_of(relative, ["second"]) == ("ood", "id")
    assert cell_of(relative, ["first", "second"]) == ("id", "id")
    assert cell_of(relative, ["other"]) is None
    assert cell_of(relative, ["first", "other"]) is None, "nothing says whether its text is like the other's"
    both = dataclasses.replace(relative, tags={"image": "ood", "text": "ood", **relative.tags})
    assert cell_of(both, ["other"]) == ("ood", "ood")
    assert cell_of(both, ["other", "first"]) == ("id", "ood")


def test_a_sweep_whose_benchmarks_say_nothing_has_no_cells_and_stage_0_has_none() -> None:
    plain = made_trial()
    assert measure_cells(plain, 1, scored(plain, {})) == ()
    trial = tagged(a=ID_OOD)
    assert measure_cells(trial, 0, scored(trial, {})) == ()


CELLS = [Cell("id", "id", 30.0, 20.0, 40.0, ("birds",)), Cell("ood", "id", None, None, None, ())]


def test_cells_of_a_stage_are_found_by_stage_or_number_and_exported() -> None:
    trial = make_trial(stages=1)
    trial = dataclasses.replace(trial, stages=[trial.stages[0], dataclasses.replace(trial.stages[1], cells=CELLS)])
    assert cells(trial, 1) == cells(trial, trial.stages[1]) == CELLS
    assert cells(trial, 0) == []
    with pytest.raises(KeyError):
        cells(trial, 2)
    told = json.loads(as_json(SweepResults("s", [trial])))["trials"][0]["stages"]
    assert told[0]["cells"] == []
    assert told[1]["cells"][0] == {
        "image": "id",
        "text": "id",
        "change": 30.0,
        "low": 20.0,
        "high": 40.0,
        "benchmarks": ["birds"],
    }
    assert told[1]["cells"][1]["change"] is None


def test_the_mean_over_seeds_knows_how_far_seeds_differ() -> None:
    stage = dataclasses.replace(make_trial(stages=1).stages[1], cells=CELLS)
    other = dataclasses.replace(stage, cells=[dataclasses.replace(CELLS[0], change=10.0, low=0.0, high=20.0), CELLS[1]])
    mean = mean_stage([stage, other]).cells
    assert mean[0].change == pytest.approx(20)
    assert mean[0].low < 0 and mean[0].high > 40
    assert mean[1] == CELLS[1]
