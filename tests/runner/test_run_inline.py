"""One sweep, run for real in one process: what is computed, what is not computed again, what is reported."""

from __future__ import annotations

import errno
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from made import SWEEP, write_sweep
from own_data import write_receipts
from typer.testing import CliRunner, Result

from lmmcl.cli import app
from lmmcl.config.sweep import load_sweep
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.ledger.packs.packed_files import pack_of
from lmmcl.steps import Evaluate
from lmmcl.training.stage_errors import PreemptedError

pytestmark = pytest.mark.usefixtures("packed_runs")


def lmmcl(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def run(sweep: Path, store: Path, *more: str) -> Result:
    return lmmcl("run", sweep, "--store", store, "--inline", "--mlflow", "off", *more)


def report(sweep: Path, store: Path) -> dict:
    return json.loads(lmmcl("report", sweep, "--store", store, "--format", "json").stdout)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="module")
def store(sweep: Path) -> Path:
    folder = sweep.parent / "store"
    first = run(sweep, folder)
    assert first.exit_code == 0, first.output
    return folder


def test_every_wanted_step_is_recorded_and_nothing_else_is_left(sweep: Path, store: Path) -> None:
    ledger = Ledger(str(store))
    assert all(ledger.find(step) for step in load_sweep(sweep).steps.values())
    assert not list((store / ".partial").iterdir())
    assert not list((store / "runs").iterdir())


def written(store: Path) -> dict[Path, int]:
    """When the files of checkpoints and of packs were written."""
    files = [file for folder in ("checkpoints", "packs") for file in (store / folder).rglob("*") if file.is_file()]
    return {file: file.stat().st_mtime_ns for file in files}


def test_a_finished_trial_is_few_files(sweep: Path, store: Path) -> None:
    for checkpoint in {step.checkpoint for step in load_sweep(sweep).steps.values() if isinstance(step, Evaluate)}:
        folders = [store / kind / checkpoint.path.partition("/")[2] for kind in ("checkpoints", "scores", "probes")]
        files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
        assert [file.suffix for file in files] == ([".safetensors"] if checkpoint.parents else [])
        assert (store / str(pack_of(checkpoint.path))).is_file()


def test_the_same_command_again_computes_nothing(sweep: Path, store: Path) -> None:
    before = written(store)
    again = run(sweep, store)
    assert "0 steps computed" in again.output
    assert written(store) == before and {file.suffix for file in before} == {".safetensors", ".zip"}


def test_one_more_learning_rate_computes_only_its_own_trials(sweep: Path, store: Path) -> None:
    wider = write_sweep(sweep.parent, SWEEP.replace("3.0e-4]", "3.0e-4, 1.0e-4]"), "wider.yaml")
    made = json.loads(lmmcl("plan", wider, "--store", store, "--json").stdout)
    assert made["to_run"] == {"pretrained": 0, "finetune": 4, "snapshot": 0, "merge": 0, "evaluate": 16, "examine": 0}
    assert [trial["name"] for trial in made["trials"] if trial["recorded"] < trial["wanted"]] == [
        "sa_proj · lr 1e-4 · tiny-onevision · s0",
        "gate_up · lr 1e-4 · tiny-onevision · s0",
    ]


def test_the_report_holds_every_trial_with_its_stages_measures_and_intervals(sweep: Path, store: Path) -> None:
    trials = report(sweep, store)["trials"]
    assert len(trials) == 4
    for trial in trials:
        assert {"model", "recipe", "mitigation", "learning_rate", "order", "seed"} <= set(trial)
        assert [stage["number"] for stage in trial["stages"]] == [0, 1, 2]
        assert set(trial["stages"][1]["scores"]) == {"counting", "clock", "colour", "shape"}
        for measure in ("learning", "target_forgetting", "overall", "held_out_forgetting"):
            low, high = trial["intervals"][measure]
            assert low <= trial[measure] <= high
        assert {"learning", "held_out_forgetting"} <= set(trial["stages"][2])


def test_the_report_agrees_with_the_sample_files(sweep: Path, store: Path) -> None:
    trial = load_sweep(sweep).trials[0]
    step = next(each for each in trial.stages[2].evaluations if each.benchmark.name == "colour")
    rows = Ledger(str(store)).read_lines(step.path, "samples.jsonl")
    shown = next(each for each in report(sweep, store)["trials"] if each["name"] == trial.name)
    assert shown["stages"][2]["scores"]["colour"] == pytest.approx(100 * sum(row["score"] for row in rows) / len(rows))
    assert {"question", "references", "prediction", "score"} <= set(rows[0])


def test_the_page_is_one_file_that_names_every_trial(store: Path) -> None:
    page = (store / "reports" / "small" / "index.html").read_text()
    for recipe in ("sa_proj", "gate_up"):
        assert recipe in page
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=.https?:", page), "the page must need no network"


def test_status_says_how_far_each_trial_is(sweep: Path, store: Path, tmp_path: Path) -> None:
    done = json.loads(lmmcl("status", sweep, "--store", store, "--json").stdout)
    assert [trial["next"] for trial in done["trials"]] == [None] * 4
    new = json.loads(lmmcl("status", sweep, "--store", tmp_path, "--json").stdout)
    assert [(trial["stages_done"], trial["next"]) for trial in new["trials"]] == [(0, "pre-trained")] * 4


def test_an_exported_checkpoint_answers_as_the_evaluated_one_did(sweep: Path, store: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText

    from lmmcl.evaluation.evaluate import score_benchmarks

    stage = load_sweep(sweep).trials[2].stages[2]
    lmmcl("export", stage.checkpoint.key, "--to", tmp_path / "model", "--store", store)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "model").eval()
    processor = stage.checkpoint.model.load_processor()
    benchmarks = [step.benchmark for step in stage.evaluations]
    answered = score_benchmarks(model, processor, benchmarks, limit=8, batch_size=4)
    for step in stage.evaluations:
        recorded = [row["prediction"] for row in Ledger(str(store)).read_lines(step.path, "samples.jsonl")]
        assert [sample.prediction for sample in answered[step.benchmark.name]] == recorded


def test_a_checkpoint_can_be_asked_by_hand(sweep: Path, store: Path, tmp_path: Path) -> None:
    key = load_sweep(sweep).trials[0].key
    store = Path(shutil.copytree(store, tmp_path / "store"))  # scores of four questions are records, too
    scores = json.loads(
        lmmcl("eval", key, "-b", "shape", "-b", "size", "--limit", "4", "--store", store, "--json").stdout
    )
    assert set(scores) == {"shape", "size"}
    for score in scores.values():
        low, high = score["interval"]
        assert score["questions"] == 4 and low <= score["score"] <= high and high - low > 10
    lines = lmmcl("eval", key, "-b", "shape", "-b", "size", "--limit", "4", "--store", store).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["shape", "size"] and all(line.endswith("n = 4") for line in lines)
    assert f"{scores['shape']['score']:.1f}  [{scores['shape']['interval'][0]:.1f}, " in lines[0]
    facts = json.loads(lmmcl("show", key[:8], "--store", store, "--json").stdout)
    assert facts["record"]["proof"]["frozen"] > 0
    assert "size" in facts["scores"]


def test_own_files_are_taught_asked_and_reported_without_python(tmp_path: Path) -> None:
    write_receipts(tmp_path / "data", rows=24)
    write_receipts(tmp_path / "data", rows=8, name="test.json", seed=1)
    entry = {"test": "data/test.json", "images": "data"}
    text = {
        **yaml.safe_load(SWEEP),
        "skills": {"receipts": {**entry, "train": "data/train.json", "metric": "anls"}},
        "orders": {"main": ["receipts"]},
        "benchmarks": {"held_out": ["prices"], "own": {"prices": {**entry, "metric": "exact_match"}}},
        "grids": [{"model": ["tiny-onevision"], "recipe": ["gate_up"], "learning_rate": [1e-3]}],
    }
    path = write_sweep(tmp_path, yaml.safe_dump(text))
    assert run(path, tmp_path / "store").exit_code == 0
    [trial] = report(path, tmp_path / "store")["trials"]
    assert set(trial["stages"][1]["scores"]) == {"receipts", "prices"}


def test_a_row_that_breaks_fails_its_trial_by_name_and_the_others_finish(tmp_path: Path) -> None:
    write_receipts(tmp_path / "data", rows=16)
    write_receipts(tmp_path / "torn", rows=16)
    cut = sorted((tmp_path / "torn").rglob("*.png"))[3]
    cut.write_bytes(cut.read_bytes()[:-40])  # its head is whole: what is missing is found when the row is taught
    write_receipts(tmp_path / "data", rows=4, name="test.json", seed=1)
    text = {
        **yaml.safe_load(SWEEP),
        "skills": {
            name: {"train": f"{folder}/train.json", "test": "data/test.json", "metric": "anls"}
            for name, folder in (("whole", "data"), ("broken", "torn"))
        },
        "orders": {"bad": ["broken"], "good": ["whole"]},
        "benchmarks": {"held_out": ["colour"]},
        "grids": [{"model": ["tiny-onevision"], "recipe": ["gate_up"], "order": ["bad", "good"]}],
    }
    path = write_sweep(tmp_path, yaml.safe_dump(text))
    result = run(path, tmp_path / "store")
    assert result.exit_code == 1
    assert "skill broken" in result.output
    assert "row" in result.output
    shown = {trial["order"]: len(trial["stages"]) for trial in report(path, tmp_path / "store")["trials"]}
    assert shown == {"bad": 1, "good": 2}
    assert list((tmp_path / "store" / "failures").iterdir())


def test_a_store_that_cannot_be_written_is_refused_before_anything_runs(sweep: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--store"):
        run(sweep, tmp_path / "file" / "store")


def test_a_run_that_is_told_to_end_in_a_stage_ends_and_fails_no_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(*_: object, **__: object) -> bool:
        raise PreemptedError("stopped by a termination request; saved after update 3")

    monkeypatch.setattr("lmmcl.runner.inline.compute", told)
    ended = run(write_sweep(tmp_path), tmp_path / "store")
    assert ended.exit_code == 130, ended.output
    assert "run the same command to resume" in ended.output and "failed" not in ended.output


def test_a_disk_that_stays_full_hides_no_failure_of_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object, **__: object) -> bool:
        monkeypatch.setattr("lmmcl.runner.command.write_report", no_room)
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")

    monkeypatch.setattr("lmmcl.runner.inline.compute", no_room)
    ended = run(write_sweep(tmp_path), tmp_path / "store")
    assert ended.exit_code == 1, ended.output
    assert (
        "failed  4 trials" in ended.output and "page    not written: [Errno 28] No space left on device" in ended.output
    )
