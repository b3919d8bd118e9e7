"""The measures and their names: the sign of each is said, and each is shown under one name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made import write_sweep
from pretended import SEARCH

from lmmcl.config.search_settings import Asha, Optuna
from lmmcl.config.sweep import load_sweep
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.measures import ABOVE_0_FORGOT, EQUAL_TO, MEASURES, Run, all_measures, better
from lmmcl.reports.published.published_file import Figure
from lmmcl.reports.results import StageResult
from lmmcl.search.search_state import Decisions
from lmmcl.steps.keys import key_of
from lmmcl.tracking.mlflow_names import stage_metrics

FORGOT = Run(
    ("a", "b"),
    ("h",),
    {(0, "a"): 10.0, (1, "a"): 50.0, (2, "a"): 20.0, (0, "b"): 10.0, (1, "b"): 10.0, (2, "b"): 60.0}
    | {(0, "h"): 80.0, (1, "h"): 75.0, (2, "h"): 60.0},
)  # fmt: skip


def test_the_sign_of_forgetting_is_the_one_that_its_definition_states() -> None:
    measured = all_measures(FORGOT, 2)
    for name, measure in MEASURES.items():
        if "forgetting" in name or name == "bwt":
            stated = "Above 0: forgot" if name in ABOVE_0_FORGOT else "elow 0: forgot"
            assert stated in (measure.__doc__ or ""), name
            assert np.sign(measured[name]) == (1 if name in ABOVE_0_FORGOT else -1), name
            assert better(name) == ("min" if name in ABOVE_0_FORGOT else "max")


def test_what_was_measured_before_changes_no_measure() -> None:
    rng, order, held_out = np.random.default_rng(0), ("a", "b", "a", ("c", "d")), ("h", "i")
    scores = {(stage, name): rng.random(5) for stage in range(5) for name in (*"abcd", *held_out)}
    run = Run(order, held_out, scores)
    for stage in (4, 2, 3, 1, 4):
        alone, again = all_measures(Run(order, held_out, scores), stage), all_measures(run, stage)
        assert alone.keys() == again.keys()
        assert all(np.array_equal(alone[name], again[name]) for name in alone)


def test_measures_with_two_names_are_equal_and_mlflow_gets_one_of_them() -> None:
    measured = {name: float(value) for name, value in all_measures(FORGOT, 2).items()}
    assert all(measured[second] == measured[first] for second, first in EQUAL_TO.items())
    stage = StageResult(2, "b", "key", measures=measured, intervals=dict.fromkeys(measured, (0.0, 1.0)))
    logged = stage_metrics(stage)
    assert {"target_forgetting", "target_forgetting_low", "chaudhry_forgetting"} <= logged.keys()
    assert not [name for name in logged if name.split("_")[0] == "bwt" or name.startswith("forgetting")]


def test_a_sweep_file_with_the_old_name_of_a_measure_still_means_that_measure(tmp_path: Path) -> None:
    text = (
        SEARCH + "search: {stop: {forgetting: {above: 20}}, scheduler: {asha: {metric: forgetting, grace_stages: 2}}}\n"
    )
    search = load_sweep(write_sweep(tmp_path, text)).search
    assert list(search.stop) == ["chaudhry_forgetting"]
    assert search.asha is not None and search.asha.metric == "chaudhry_forgetting" and search.asha.direction == "min"
    both = SEARCH + "search: {stop: {forgetting: {above: 20}, chaudhry_forgetting: {above: 10}}}\n"
    with pytest.raises(UserError, match="forgetting is the old name of chaudhry_forgetting"):
        load_sweep(write_sweep(tmp_path, both))


def test_decisions_and_proposals_that_a_store_keeps_under_the_old_name_are_found(tmp_path: Path) -> None:
    new = Asha(metric="chaudhry_forgetting")
    old = {**new.model_dump(mode="json"), "metric": "forgetting"}
    folder = Decisions("s", new, Ledger(str(tmp_path)))._folder
    assert folder == f"searches/s-asha-{key_of({'kind': 'asha', **old})}"
    renamed = Optuna(trials=3, objectives={"chaudhry_forgetting": "min"})
    assert renamed.identity()["objectives"] == {"forgetting": "min"}


def test_a_file_of_published_figures_may_use_the_old_name() -> None:
    figure = Figure.model_validate(
        {
            "of": {"model": ["m"], "recipe": "full", "skills": ["birds"]},
            "where": "Table 1",
            "values": {"forgetting@2": 3.0},
        }
    )
    assert figure.values == {"chaudhry_forgetting@2": 3.0}
