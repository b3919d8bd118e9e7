from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic_results import make_sweep, make_trial

from lmmcl.errors import UserError
from lmmcl.reports.results import SweepResults
from lmmcl.reports.tables.export import FORMATS, as_csv, as_dict, as_json, flat_rows, write


def test_json_holds_the_grid_point_the_stages_and_the_final_measures_with_intervals() -> None:
    results = make_sweep(recipes=["sa_proj"], rates=[1e-5], mitigations=["wise_ft"])
    read = json.loads(as_json(results))
    (trial,) = read["trials"]
    last = results.trials[0].stages[-1]
    assert {axis: trial[axis] for axis in ("model", "recipe", "mitigation", "learning_rate", "order", "seed")} == {
        "model": "tiny-onevision",
        "recipe": "sa_proj",
        "mitigation": "wise_ft",
        "learning_rate": 1e-5,
        "order": "main",
        "seed": 0,
    }
    for name in ("learning", "target_forgetting", "overall", "held_out_forgetting"):
        assert trial[name] == last.measures[name]
        assert trial["intervals"][name] == list(last.intervals[name])
    assert [stage["number"] for stage in trial["stages"]] == [0, 1, 2, 3, 4, 5]
    assert trial["stages"][3]["scores"] == dict(results.trials[0].stages[3].scores)
    assert trial["stages"][3]["learning"] == results.trials[0].stages[3].measures["learning"]
    assert trial["stages"][0]["learning"] is None


def test_what_is_not_a_finite_number_becomes_null() -> None:
    trial = make_trial()
    broken = replace(
        trial.stages[-1],
        scores={"birds": float("nan"), "colour": np.float32(50.5)},
        measures={"learning": float("inf"), "overall": np.float64(1.5)},
        intervals={"learning": (float("nan"), 1.0), "overall": (np.float64(1.0), 2.0)},
    )
    results = SweepResults(
        "s", [replace(trial, stages=[*trial.stages[:-1], broken], axes={**trial.axes, "rank": np.int64(4)})]
    )
    read = json.loads(as_json(results), parse_constant=pytest.fail)["trials"][0]
    assert read["stages"][-1]["scores"] == {"birds": None, "colour": 50.5}
    assert read["learning"] is None and read["overall"] == 1.5
    assert read["intervals"] == {"overall": [1.0, 2.0]}
    assert read["rank"] == 4


def test_a_trial_without_stages_has_the_same_keys() -> None:
    empty = replace(make_trial(), stages=[], state="failed", error="boom")
    full, bare = as_dict(SweepResults("s", [make_trial(), empty]))["trials"]
    assert set(full) - set(bare) <= {"bwt"}
    assert bare["learning"] is None and bare["state"] == "failed" and bare["error"] == "boom"


def test_loss_curves_come_on_request() -> None:
    results = make_sweep(recipes=["sa_proj"], rates=[1e-5], updates=3)
    assert "curve" not in as_dict(results)["trials"][0]["stages"][1]
    assert len(as_dict(results, curves=True)["trials"][0]["stages"][1]["curve"]) == 3


def test_rows_are_flat_and_alike() -> None:
    axis = replace(make_trial("full"), axes={**make_trial("full").axes, "ranks": [8, 16]})
    rows = flat_rows(SweepResults("s", [make_trial(), axis]))
    assert rows[0].keys() == rows[1].keys()
    assert rows[0]["ranks"] is None and rows[1]["ranks"] == "[8, 16]"
    assert rows[0]["score/birds"] > 0 and rows[0]["learning_low"] < rows[0]["learning"] < rows[0]["learning_high"]


def test_csv_reads_back() -> None:
    results = make_sweep(recipes=["sa_proj", "full"], rates=[1e-5])
    rows = list(csv.DictReader(io.StringIO(as_csv(results))))
    assert [float(row["learning"]) for row in rows] == [trial.measure("learning") for trial in results.trials]


def test_parquet_reads_back(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    results = make_sweep(recipes=["sa_proj", "full"], rates=[1e-5])
    write(results, tmp_path / "out" / "table.parquet", "parquet")
    assert pq.read_table(tmp_path / "out" / "table.parquet").column("recipe").to_pylist() == ["sa_proj", "full"]


def test_an_unknown_format_is_answered_with_the_near_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'parquet'"):
        write(make_sweep(recipes=["full"]), tmp_path / "x", "parket")


def test_probes_are_exported_by_name() -> None:
    trial = make_trial(stages=1)
    probed = replace(trial, stages=[replace(stage, probes={"token_bias/numbers": 0.25}) for stage in trial.stages])
    results = SweepResults("s", [probed, make_trial("full")])
    assert as_dict(results)["trials"][0]["stages"][1]["probes"] == {"token_bias/numbers": 0.25}
    assert [row["probe/token_bias/numbers"] for row in flat_rows(results)] == [0.25, None]


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_written(kind: str, tmp_path: Path) -> None:
    write(make_sweep(recipes=["full"], rates=[1e-5]), tmp_path / "file", kind)
    assert (tmp_path / "file").stat().st_size > 100


def test_the_recommendation_is_in_the_json_as_the_words_have_it() -> None:
    results = make_sweep(recipes=["sa_proj", "gate_up", "full"], rates=[1e-5, 1e-4])
    found = json.loads(as_json(results, 2.0))["recommendation"]
    model = found["models"][0]
    taken = model["take"]
    assert found["budget"] == 2.0 and found["words"][0] == f"Take {taken['name']}."
    assert taken["held_out_forgetting"] >= -2.0 and taken["name"] in [each["name"] for each in model["front"]]
    learnt = [each["learning"] for each in model["front"]]
    assert learnt == sorted(learnt) and model["least_lost"]["name"] == model["front"][0]["name"]
    keys = {trial.key: trial for trial in results.trials}
    assert all(keys[key] for each in model["front"] for key in each["trials"])
    for each in model["front"]:
        assert each["compared_with"] == model["finished"] - 1 == 5
        for tie in each["within_noise"]:
            other = keys[tie["trials"][0]].measure("learning")
            assert tie["differences"]["learning"]["value"] == pytest.approx(other - each["learning"])


def test_a_budget_that_nobody_keeps_takes_nothing_and_seeds_are_named_together() -> None:
    results = make_sweep(recipes=["full"], rates=[1e-4], seeds=3)
    model = as_dict(results, 0.0)["recommendation"]["models"][0]
    assert model["take"] is None and len(model["least_lost"]["trials"]) == 3
    assert as_dict(SweepResults("empty", []))["recommendation"]["models"] == []


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@sum", "\tx", "=cmd|' /C calc'!A0"])
def test_no_cell_is_a_formula_to_a_spreadsheet_and_numbers_stay_numbers(text: str) -> None:
    trial = replace(make_trial(), name=text, error=f"{text}\x1b[2J")
    (row,) = csv.DictReader(io.StringIO(as_csv(SweepResults("s", [trial]))))
    assert row["name"] == f"'{text}" and row["error"] == f"'{text}\\x1b[2J"
    assert float(row["held_out_forgetting"]) == trial.measure("held_out_forgetting") < 0


def test_what_a_reader_of_the_numbers_must_know_is_in_the_json() -> None:
    results = SweepResults("mixed", [], notes=("records of two versions of Pillow",))
    assert json.loads(as_json(results))["notes"] == ["records of two versions of Pillow"]
