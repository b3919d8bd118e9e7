"""Results as DataFrames: columns, values that agree with the report, and what is refused."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from made import write_sweep

import lmmcl
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.ledger.packs.packing import unpack

SWEEP = """
name: small
orders: {main: [counting, clock]}
benchmarks: {held_out: [colour, shape]}
training: {examples: 8, max_steps: 2, global_batch_size: 4, precision: fp32}
evaluation: {precision: fp32, limit: 4}
grids: [{model: [tiny-onevision], recipe: [sa_proj, gate_up], learning_rate: [1.0e-3]}]
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The file of a small sweep, and a store in which it is finished."""
    folder = tmp_path_factory.mktemp("api")
    file, store = write_sweep(folder, SWEEP), folder / "store"
    lmmcl.run(file, store=store, inline=True, mlflow="off", quiet=True)
    return file, store


@pytest.fixture
def results(finished: tuple[Path, Path]) -> lmmcl.Results:
    file, store = finished
    return lmmcl.results(file, store=store)


def test_a_trial_is_one_row_with_its_grid_point_and_measures(results: lmmcl.Results) -> None:
    trials = results.trials()
    assert list(trials["recipe"]) == ["sa_proj", "gate_up"]
    assert list(trials["state"]) == ["done", "done"]
    assert trials["trial_key"].is_unique
    assert (trials["checkpoint_key"] == trials["trial_key"]).all(), (
        "the key of a finished trial is its last checkpoint's"
    )
    assert {"learning", "learning_low", "held_out_forgetting", "score/colour", "on_pareto_front"} <= set(trials.columns)
    assert results.failures == {}


def test_the_long_table_has_a_row_for_each_trial_stage_and_benchmark(results: lmmcl.Results) -> None:
    scores = results.scores()
    assert list(scores.columns)[:7] == ["trial", "stage", "benchmark", "score", "low", "high", "n"]
    assert len(scores) == 2 * 3 * 4
    assert not scores.duplicated(["trial_key", "stage", "benchmark"]).any()
    assert ((scores["low"] <= scores["score"]) & (scores["score"] <= scores["high"])).all()
    assert set(scores["n"]) == {4}
    assert set(scores.loc[scores["role"] == "held_out", "benchmark"]) == {"colour", "shape"}
    assert list(scores.drop_duplicates("stage")["skill"].fillna("")) == ["", "counting", "clock"]


def test_learning_can_be_computed_again_from_the_long_table(results: lmmcl.Results) -> None:
    for key, rows in results.scores().groupby("trial_key"):
        score = rows.set_index(["stage", "benchmark"])["score"]
        gains = [score[1, "counting"] - score[0, "counting"], score[2, "clock"] - score[0, "clock"]]
        trials = results.trials().set_index("trial_key")
        assert trials.loc[key, "learning"] == pytest.approx(sum(gains) / 2)
        measures = results.measures().set_index(["trial_key", "stage", "measure"])["value"]
        assert measures[key, 2, "learning"] == pytest.approx(sum(gains) / 2)


def test_answers_are_rows_whose_mean_is_the_score(results: lmmcl.Results) -> None:
    answers = results.samples("colour", stage=2)
    assert list(answers.columns)[:3] == ["trial", "stage", "benchmark"]
    assert len(answers) == 2 * 4
    means = 100 * answers.groupby("trial_key")["score"].mean()
    scores = results.scores().query("stage == 2 and benchmark == 'colour'").set_index("trial_key")["score"]
    assert means.to_dict() == pytest.approx(scores.to_dict())
    one = results.samples(["colour", "shape"], trial=answers["trial_key"][0][:8], stage=[0, 2])
    assert len(one) == 2 * 2 * 4
    assert len(results.samples()) == len(results.scores()) * 4


def test_curves_have_a_row_for_each_update_of_each_stage(results: lmmcl.Results) -> None:
    curves = results.curves()
    assert len(curves) == 2 * 2 * 2
    assert list(curves["update"][:2]) == [1, 2]
    assert curves["loss"].notna().all()
    assert set(curves["skill"]) == {"counting", "clock"}


def test_tables_without_rows_have_their_columns(results: lmmcl.Results, tmp_path: Path) -> None:
    assert list(results.probes().columns) == ["trial", "stage", "skill", "update", "probe", "value", "trial_key"]
    (tmp_path / "store" / "checkpoints").mkdir(parents=True)
    empty = lmmcl.results(write_sweep(tmp_path, SWEEP), store=tmp_path / "store")
    assert len(empty.scores()) == len(empty.curves()) == len(empty.samples()) == 0
    assert "score" in empty.scores().columns
    assert list(empty.trials()["state"]) == ["partial", "partial"]


@pytest.mark.parametrize(
    ("what", "message"),
    [({"benchmark": "color"}, "did you mean 'colour'"), ({"trial": "sa_prj"}, "unknown trial 'sa_prj'")],
)
def test_an_unknown_name_is_answered_with_the_near_ones(results: lmmcl.Results, what: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        results.samples(**what)


def test_a_store_that_is_not_there_is_an_error_and_not_an_empty_result(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=str(tmp_path / "nowhere")):
        lmmcl.results(write_sweep(tmp_path, SWEEP), store=tmp_path / "nowhere")


def test_a_damaged_file_of_answers_is_an_error(finished: tuple[Path, Path], tmp_path: Path) -> None:
    import shutil

    file, store = finished
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    unpack(Ledger(str(copy)))
    damaged = next(copy.glob("scores/*/*/colour-*/samples.jsonl"))
    damaged.write_text(damaged.read_text().replace("a", "b"))
    with pytest.raises(UserError, match=r"samples\.jsonl"):
        lmmcl.results(file, store=copy).samples("colour")


def test_a_fresh_interpreter_prints_the_long_table_quickly_and_without_heavy_libraries(
    finished: tuple[Path, Path],
) -> None:
    file, store = finished
    code = (
        "import json, sys, lmmcl\n"
        f"print(lmmcl.results({str(file)!r}, store={str(store)!r}).scores())\n"
        "print(json.dumps([name for name in ('torch', 'ray', 'mlflow', 'transformers') if name in sys.modules]))"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = sum(getattr(after, each) - getattr(before, each) for each in ("ru_utime", "ru_stime"))
    assert json.loads(done.stdout.splitlines()[-1]) == []
    assert "[24 rows x 11 columns]" in done.stdout
    assert used < 3, "seconds of processor time, which other work on the machine does not change"
