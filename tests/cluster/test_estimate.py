"""A plan that no GPU can hold is refused before it starts, with settings that would do."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from made import made_trial, write_sweep
from typer.testing import CliRunner

from lmmcl.cli import app
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.runner.estimate import RESERVE, check_memory, stage_memory
from lmmcl.runner.pace import estimate_pace
from lmmcl.spec.cluster import Cluster, TrainingPlacement
from lmmcl.spec.steps import Finetune
from lmmcl.spec.sweep import load_sweep

BIG = """
name: big
orders: {main: [counting]}
benchmarks: {held_out: [colour]}
grids:
  - {model: [llava-onevision-7b], recipe: [RECIPE]}
"""


def stage(folder: Path, recipe: str = "full") -> Finetune:
    sweep = load_sweep(write_sweep(folder, BIG.replace("RECIPE", recipe), f"{recipe}.yaml"))
    return next(step for step in sweep.steps.values() if isinstance(step, Finetune))


def one_gpu(**more: object) -> TrainingPlacement:
    return TrainingPlacement(workers=1, gpus_per_worker=1, micro_batch_size=1, **more)  # type: ignore[arg-type]


def test_only_what_trains_has_gradients_and_optimizer_states(tmp_path: Path) -> None:
    full, part = stage_memory(stage(tmp_path), one_gpu()), stage_memory(stage(tmp_path, "sa_proj"), one_gpu())
    parameters = sum(stage(tmp_path).model.role_counts().values())
    assert full.gradients == 4 * parameters and full.optimizer == 8 * parameters
    assert part.gradients < 0.15 * full.gradients
    assert part.weights - 2 * parameters == part.gradients, "fp32 of what trains, over half precision of all"
    assert full.total == full.weights + full.gradients + full.optimizer + full.activations + RESERVE


def test_zero_divides_what_its_stage_says(tmp_path: Path) -> None:
    step = stage(tmp_path)
    plain = stage_memory(step, one_gpu(strategy="deepspeed", zero_stage=1))
    for number, divided in {1: "o", 2: "og", 3: "ogw"}.items():
        four = stage_memory(step, one_gpu(strategy="deepspeed", zero_stage=number).model_copy(update={"workers": 4}))
        assert four.optimizer == plain.optimizer // 4
        assert four.gradients == plain.gradients // (4 if "g" in divided else 1)
        assert four.weights == plain.weights // (4 if "w" in divided else 1)


def test_activations_grow_with_the_micro_batch_and_shrink_with_checkpointing(tmp_path: Path) -> None:
    step = stage(tmp_path)
    one, four = (stage_memory(step, one_gpu().model_copy(update={"micro_batch_size": n})).activations for n in (1, 4))
    assert four == 4 * one
    assert stage_memory(step, one_gpu(gradient_checkpointing=True)).activations < one / 4


def test_what_the_refusal_names_does_fit(tmp_path: Path) -> None:
    step = stage(tmp_path)
    cluster = Cluster(training=one_gpu(), gpu_memory_gb=80)
    with pytest.raises(UserError, match=r"and there are 80\.0 GB") as refused:
        check_memory(step, cluster)
    remedies = re.findall(r"\{.*?\}", refused.value.message)
    assert remedies
    for remedy in remedies:
        settings = {**cluster.training.model_dump(), **yaml.safe_load(remedy)}
        check_memory(step, Cluster(training=TrainingPlacement(**settings), gpu_memory_gb=80))


def test_a_stage_that_nothing_makes_fit_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="trains less, or GPUs with more memory"):
        check_memory(stage(tmp_path), Cluster(training=one_gpu(), gpu_memory_gb=4))


def test_a_model_too_large_to_be_evaluated_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="to be evaluated"):
        check_memory(stage(tmp_path), Cluster.model_validate({"evaluation": {"gpus": 1}, "gpu_memory_gb": 12}))


def test_a_plan_with_a_cluster_file_says_memory_and_refuses(tmp_path: Path) -> None:
    (tmp_path / "node.yaml").write_text(
        "training: {workers: 1, gpus_per_worker: 1, micro_batch_size: 1}\ngpu_memory_gb: 80\n"
    )

    def plan(recipe: str) -> str:
        sweep = write_sweep(tmp_path, BIG.replace("RECIPE", recipe), f"{recipe}.yaml")
        words = ["plan", str(sweep), "--cluster", str(tmp_path / "node.yaml"), "--store", str(tmp_path), "--json"]
        return CliRunner().invoke(app, words, catch_exceptions=False).stdout

    [trial] = json.loads(plan("sa_proj"))["trials"]
    assert 20e9 < trial["gpu_bytes"]["total"] < 80e9
    with pytest.raises(UserError, match="needs about"):
        plan("full")


def test_time_is_what_recorded_steps_like_these_took(tmp_path: Path) -> None:
    ledger, trial = Ledger(str(tmp_path)), made_trial()
    [first, second] = [step for step in trial.steps().values() if isinstance(step, Finetune)]
    assert estimate_pace([second], ledger).unmeasured == 1
    with ledger.writing(first) as draft:
        draft.commit({"seconds": 40.0})
    pace = estimate_pace([second, trial.stages[1].evaluations[0]], ledger)
    assert (pace.seconds, pace.steps, pace.unmeasured) == (40.0, 1, 1)
