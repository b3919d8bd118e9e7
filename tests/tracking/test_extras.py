"""What MLflow is given beside the numbers."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from made import SWEEP, write_sweep
from synthetic_ledger import fill

from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.evaluation.samples import Sample, write_samples
from lmmcl.ledger import Ledger
from lmmcl.reports.collect import collect, trial_result
from lmmcl.reports.flips import front_keys
from lmmcl.search.run_context import RunContext
from lmmcl.tasks import get_benchmark
from lmmcl.tracking.extras import Answers, resolved, trial_tags, write_answers


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    loaded = load_sweep(write_sweep(tmp_path_factory.mktemp("extras"), SWEEP))
    fill(loaded, Path(loaded.file).parent / "store", questions=100, samples=True)
    return loaded


@pytest.fixture(scope="module")
def ledger(sweep: Sweep) -> Ledger:
    return Ledger(str(Path(sweep.file).parent / "store"))


def test_a_trial_tells_its_steps_and_how_to_export_it(sweep: Sweep, ledger: Ledger) -> None:
    trial = sweep.trials[0]
    tags, _ = Answers(RunContext.resolve(sweep, ledger)).extras(trial_result(trial, ledger))
    assert json.loads(tags["lmmcl.steps"]) == {str(stage.number): stage.checkpoint.key for stage in trial.stages}
    assert tags["lmmcl.export"] == f"lmmcl export {trial.key} --to DIR --store {ledger.store}"
    assert all(stage.checkpoint.key in tags["mlflow.note.content"] for stage in trial.stages)


def test_a_trial_of_experts_tells_no_command_that_would_be_refused(tmp_path: Path) -> None:
    text = SWEEP.replace("recipe: [sa_proj, gate_up]", "recipe: [{moelora: {rank: 16}}]")
    sweep = load_sweep(write_sweep(tmp_path, text))
    fill(sweep, tmp_path / "store", questions=5)
    ledger = Ledger(str(tmp_path / "store"))
    tags, _ = Answers(RunContext.resolve(sweep, ledger)).extras(trial_result(sweep.trials[0], ledger))
    assert "lmmcl.export" not in tags and "lmmcl export" not in tags["mlflow.note.content"]
    assert "lmmcl show" in tags["mlflow.note.content"]


def test_commands_hold_for_a_store_with_a_space_in_its_name(sweep: Sweep, ledger: Ledger) -> None:
    tags = trial_tags(trial_result(sweep.trials[0], ledger), "/my data/store")
    assert shlex.split(tags["lmmcl.export"])[-2:] == ["--store", "/my data/store"]
    assert tags["mlflow.note.content"].count("--store '/my data/store'") == 2


def test_a_trial_tells_the_commit_and_the_versions_that_made_it(sweep: Sweep, ledger: Ledger) -> None:
    tags, _ = Answers(RunContext.resolve(sweep, ledger)).extras(trial_result(sweep.trials[0], ledger))
    assert tags["mlflow.source.git.commit"] == "0123abc"
    assert json.loads(tags["lmmcl.versions"]) == {"lmmcl": "0.1.0", "torch": "2.13.0"}


def test_a_table_has_the_first_questions_and_the_wrong_ones_after_them(sweep: Sweep, ledger: Ledger) -> None:
    trial = sweep.trials[0]
    _, tables = Answers(RunContext.resolve(sweep, ledger)).extras(trial_result(trial, ledger))
    table = json.loads(tables["samples.json"])
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"] if row[0] == "colour"]
    assert [row["id"] for row in rows[:32]] == [f"colour-{number}" for number in range(32)]
    assert 0 < len(rows[32:]) <= 32 and all(row["score"] == 0 and row["after"] == "no" for row in rows[32:])
    assert {row[0] for row in table["data"]} == {"counting", "clock", "colour", "shape"}


def test_there_is_no_table_before_the_last_stage(sweep: Sweep, ledger: Ledger, tmp_path: Path) -> None:
    fill(sweep, tmp_path, questions=5)
    last = sweep.trials[0].stages[-1].evaluations[0]
    (tmp_path / last.path / "record.json").unlink()
    tags, tables = Answers(RunContext.resolve(sweep, ledger)).extras(
        trial_result(sweep.trials[0], Ledger(str(tmp_path)))
    )
    assert tables == {} and sorted(json.loads(tags["lmmcl.steps"])) == ["0", "1"]


def test_answers_of_the_front_stand_side_by_side_with_pictures(sweep: Sweep, tmp_path: Path) -> None:
    fill(sweep, tmp_path / "store", questions=5)
    ids = [example.id for example in get_benchmark("colour").load()[:5]]
    for trial in sweep.trials:
        for stage in trial.stages:
            step = next(each for each in stage.evaluations if each.benchmark.name == "colour")
            answers = [Sample(id, "which colour ?", ("red",), f"{trial.name} {stage.number}", 1.0) for id in ids]
            write_samples(tmp_path / "store" / step.path / "samples.jsonl", answers)
    ledger = Ledger(str(tmp_path / "store"))
    results = collect(sweep, ledger)
    folder = write_answers(RunContext.resolve(sweep, ledger), tmp_path / "answers", front_keys(results))
    table = json.loads((folder / "colour.json").read_text(encoding="utf-8"))
    names = [trial.name for trial in sweep.trials if trial.key in front_keys(results)]
    assert table["columns"] == ["image", "id", "question", "wanted", "before", *names] and len(table["data"]) == 5
    picture, *_, said = table["data"][0]
    assert (tmp_path / picture["filepath"]).read_bytes().startswith(b"\x89PNG") and said == f"{names[-1]} 2"
    assert json.loads((folder / "counting.json").read_text(encoding="utf-8"))["data"][0][0] is None


def test_the_sweep_is_written_as_it_was_understood(sweep: Sweep) -> None:
    data = json.loads(resolved(sweep))
    assert [trial["key"] for trial in data["trials"]] == [trial.key for trial in sweep.trials]
    assert data["trials"][0]["training"]["learning_rate"] == 1e-3 and data["trials"][0]["steps"]["2"]
