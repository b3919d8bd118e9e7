"""What is known of a task of lmms-eval without lmms-eval: its name, what it is in a key, and why one cannot be asked."""

from __future__ import annotations

import importlib.util
import pickle
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from lmms_eval_tasks import write_tasks
from made import SWEEP, write_sweep

from lmmcl.config.sweep import load_sweep
from lmmcl.errors import UserError
from lmmcl.steps import Evaluate
from lmmcl.tasks import get_benchmark
from lmmcl.tasks.hub.hub_data import check_prepared
from lmmcl.tasks.lmms_eval import benchmark as module
from lmmcl.tasks.lmms_eval.benchmark import ADAPTER, Installed, lmms_eval_benchmark

SHIPPED = """
dataset_path: lab/Sights
task: "sights_val"
tag: [sights]
test_split: validation
output_type: generate_until
generation_kwargs: {max_new_tokens: 16}
process_results: !function utils.process_results
metric_list:
  - {metric: sights_acc, aggregation: !function utils.aggregate, higher_is_better: true}
  - {metric: sights_judged_by_gpt, aggregation: mean, higher_is_better: true}
metadata: [{version: 0.0}]
"""


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the tasks of an installed lmms-eval, 9.8.7."""
    folder = tmp_path / "installed" / "tasks"
    (folder / "sights").mkdir(parents=True)
    (folder / "sights" / "sights.yaml").write_text(SHIPPED)
    monkeypatch.setattr(module, "installed", lambda name="": Installed("9.8.7", folder))
    return folder


def variant(folder: Path, old: str, new: str) -> str:
    """The refusal of the shipped task with one line changed."""
    assert old in SHIPPED
    (folder / "sights" / "sights.yaml").write_text(SHIPPED.replace(old, new))
    with pytest.raises(UserError) as caught:
        lmms_eval_benchmark("lmms_eval/sights_val")
    return str(caught.value)


def test_a_name_is_a_benchmark_whose_key_holds_task_and_version(shipped: Path) -> None:
    benchmark = get_benchmark("lmms_eval/sights_val")
    assert benchmark.identity() == {
        "name": "lmms_eval/sights_val",
        "version": ADAPTER,
        "metric": "sights_acc",
        "lmms_eval": "9.8.7",
    }
    assert benchmark.max_new_tokens == 16
    assert "lmms_eval" not in sys.modules


def test_another_lmms_eval_is_another_key(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = get_benchmark("lmms_eval/sights_val")
    monkeypatch.setattr(module, "installed", lambda name="": Installed("9.9.0", shipped))
    assert get_benchmark("lmms_eval/sights_val").identity() != before.identity()
    with pytest.raises(UserError, match=r"planned with lmms-eval 9\.8\.7, but 9\.9\.0 is installed"):
        before.load()


def test_without_the_extra_the_way_to_install_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'lmms_eval/mmmu_val needs lmms-eval.*pip install -e "\.\[lmms-eval\]"'):
        get_benchmark("lmms_eval/mmmu_val")


def test_a_wrong_task_is_answered_with_the_near_one(shipped: Path) -> None:
    with pytest.raises(UserError, match=r"unknown task of lmms-eval 'sihgts_val'; did you mean 'sights_val'"):
        get_benchmark("lmms_eval/sihgts_val")


def test_a_group_is_answered_with_its_tasks(shipped: Path) -> None:
    with pytest.raises(UserError, match=r"'sights' is a group of tasks of lmms-eval.*: sights_val"):
        get_benchmark("lmms_eval/sights")


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("output_type: generate_until", "output_type: multiple_choice", "has output_type multiple_choice"),
        ("output_type: generate_until", "output_type: generate_until_multi_round", "generate_until_multi_round"),
        ("metric: sights_acc", "metric: gpt_eval_score", "judge model (gpt_eval_score)"),
        ("metadata: [{version: 0.0}]", "metadata: {gpt_eval_model_name: gpt-4}", "judge model (gpt_eval_model_name)"),
        ("metric: sights_acc", "metric: submission", "only writes a file"),
        ("utils.aggregate, higher_is_better: true", "utils.aggregate, higher_is_better: false", "is lower"),
        ("test_split: validation", "dataset_kwargs: {video: true}", "is about video"),
        ("test_split: validation", "num_fewshot: 4", "shows 4 examples"),
        ("test_split: validation", "repeats: 8", "asks 8 times"),
        ("max_new_tokens: 16", "do_sample: true", "samples its answers"),
        ("max_new_tokens: 16", "num_beams: 5", "searches with beams"),
        ("metric_list:", "other:", "names no metric"),
        ("metadata: [{version: 0.0}]", "metadata: [{version: 0.0, use_judge: true}]", "judge model (use_judge)"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_what_can(shipped: Path, old: str, new: str, why: str) -> None:
    said = variant(shipped, old, new)
    assert why in said
    assert "Supported are tasks of lmms-eval that generate one answer to text and images" in said


def test_a_judge_that_is_switched_off_is_none(shipped: Path) -> None:
    file = shipped / "sights" / "sights.yaml"
    file.write_text(SHIPPED.replace("{version: 0.0}", "{use_judge: false}"))
    assert get_benchmark("lmms_eval/sights_val").metric == "sights_acc"


def test_it_travels_to_workers(shipped: Path) -> None:
    benchmark = get_benchmark("lmms_eval/sights_val")
    sent = pickle.loads(pickle.dumps(benchmark))
    assert sent == benchmark
    assert sent.identity() == benchmark.identity()


def test_settings_that_a_task_includes_count(shipped: Path) -> None:
    (shipped / "sights" / "_base").write_text(SHIPPED.replace('task: "sights_val"\n', ""))
    (shipped / "sights" / "lite.yaml").write_text(
        "include: _base\ntask: sights_lite\ngeneration_kwargs: {max_new_tokens: 3}"
    )
    benchmark = get_benchmark("lmms_eval/sights_lite")
    assert (benchmark.metric, benchmark.max_new_tokens) == ("sights_acc", 3)


def test_own_tasks_enter_by_the_content_of_their_folder(shipped: Path, tmp_path: Path) -> None:
    first, second = (
        lmms_eval_benchmark("lmms_eval/own_colour", write_tasks(tmp_path / name)) for name in ("here", "there")
    )
    assert first.identity() == second.identity()
    (tmp_path / "there" / "utils.py").write_text("def doc_to_text(doc): return 'Well?'")
    changed = lmms_eval_benchmark("lmms_eval/own_colour", tmp_path / "there")
    assert changed.identity() != first.identity()
    with pytest.raises(UserError, match="changed since the sweep was read"):
        second.load()


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("rows.parquet", "FOLDER/away/rows.parquet", "dataset_kwargs.data_files"),
        ("rows.parquet", "../away/rows.parquet", "dataset_kwargs.data_files"),
        ("rows.parquet", "../away/*.parquet", "dataset_kwargs.data_files"),
        ("rows.parquet", ".cache/rows.parquet", "dataset_kwargs.data_files"),
        ("rows.parquet", "linked/rows.parquet", "dataset_kwargs.data_files"),
        ("rows.parquet", "away/rows.parquet", "dataset_kwargs.data_files"),
        ("data_files: {test: rows.parquet}", "data_dir: FOLDER/away", "dataset_kwargs.data_dir"),
        ("dataset_path: parquet", "dataset_path: FOLDER/away", "dataset_path"),
        ("dataset_path: parquet", "dataset_path: away", "dataset_path"),
        ("dataset_path", "include: ../away/more\ndataset_path", "include"),
    ],
)  # fmt: skip
def test_what_an_own_task_reads_from_outside_its_folder_is_refused(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, place: str
) -> None:
    own, away = write_tasks(tmp_path / "own"), tmp_path / "away"
    away.mkdir()
    (away / "rows.parquet").touch()
    (away / "more").write_text("num_fewshot: 0\n")
    (own / "linked").symlink_to(away)
    monkeypatch.chdir(tmp_path)
    base = own / "_base"
    base.write_text(base.read_text().replace(old, new.replace("FOLDER", str(tmp_path)), 1))
    with pytest.raises(UserError, match="put it into the folder") as caught:
        lmms_eval_benchmark("lmms_eval/own_colour", own)
    assert f": {place}: " in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rows.parquet", "parts/*.parquet"),
        ("rows.parquet", "OWN/rows.parquet"),
        ("rows.parquet", "https://lab.example/rows.parquet"),
        ("dataset_path: parquet", "dataset_path: lab/Sights"),
        ("dataset_path", "include: SHIPPED/sights/sights.yaml\ndataset_path"),
    ],
)
def test_what_an_own_task_reads_from_its_folder_the_hub_or_lmms_eval_is_not(
    shipped: Path, tmp_path: Path, old: str, new: str
) -> None:
    own = write_tasks(tmp_path / "own")
    base = own / "_base"
    base.write_text(base.read_text().replace(old, new.replace("OWN", str(own)).replace("SHIPPED", str(shipped)), 1))
    assert lmms_eval_benchmark("lmms_eval/own_colour", own).digest


def test_a_folder_of_own_tasks_leaves_the_shipped_ones_as_they_are(shipped: Path, tmp_path: Path) -> None:
    alone = lmms_eval_benchmark("lmms_eval/sights_val")
    beside = lmms_eval_benchmark("lmms_eval/sights_val", write_tasks(tmp_path / "own"))
    assert alone.identity() == beside.identity()


def test_an_own_task_of_a_shipped_name_is_refused(shipped: Path, tmp_path: Path) -> None:
    own = write_tasks(tmp_path / "own")
    (own / "mine.yaml").write_text(SHIPPED)
    with pytest.raises(UserError, match=r"mine\.yaml: 'sights_val' is the name of a task that ships"):
        lmms_eval_benchmark("lmms_eval/sights_val", own)


def test_a_sweep_names_it_beside_other_benchmarks(shipped: Path, tmp_path: Path) -> None:
    write_tasks(tmp_path / "tasks")
    held_out = "{held_out: [colour, lmms_eval/sights_val, lmms_eval/own_colour], lmms_eval: {include: tasks}, tags: {lmms_eval/sights_val: {image: ood, text: ood}}}"
    sweep = load_sweep(write_sweep(tmp_path, SWEEP.replace("{held_out: [colour, shape]}", held_out)))
    names = [each.name for each in sweep.trials[0].held_out]
    assert names == ["colour", "lmms_eval/sights_val", "lmms_eval/own_colour"]
    paths = [step.path for step in sweep.steps.values() if isinstance(step, Evaluate) and "/" in step.label]
    assert all(path.split("/")[-1].startswith(("lmms_eval.sights_val-", "lmms_eval.own_colour-")) for path in paths)
    assert len(paths) == 2 * (1 + 2 * 4)  # the base once, two stages of four trials


def test_a_sweep_says_where_a_wrong_task_stands(shipped: Path, tmp_path: Path) -> None:
    wrong = SWEEP.replace("[colour, shape]", "[colour, lmms_eval/sights_vla]")
    with pytest.raises(UserError, match=r"small\.yaml: benchmarks\.held_out\[1\]: .*did you mean 'sights_val'"):
        load_sweep(write_sweep(tmp_path, wrong))


def test_offline_a_data_set_in_no_cache_is_told_before_anything_starts(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("LMMCL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    benchmark = lmms_eval_benchmark("lmms_eval/sights_val")
    with pytest.raises(UserError, match=r"lab/Sights of lmms_eval/sights_val is not in the cache.*python -c"):
        check_prepared([benchmark])
    with pytest.raises(UserError, match=r"fetch it with `lmmcl data prepare ai2d`\n.*lab/Sights"):
        check_prepared([benchmark, get_benchmark("ai2d")])
    (tmp_path / "cache" / "lab___sights").mkdir(parents=True)
    assert benchmark.missing() is None
    assert replace(benchmark, data="parquet").missing() is None
