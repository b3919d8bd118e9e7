"""What cannot be on a cluster is refused before anything is spent, by a plan as by a run, with settings that would do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from made import write_sweep
from pretended import SEARCH, Pretence, lmmcl, pretence, run  # noqa: F401 - pretence is a fixture

from lmmcl.config.cluster import Cluster
from lmmcl.config.sweep import load_sweep
from lmmcl.errors import UserError
from lmmcl.planning.fits import check_asked, check_stage, find_infeasible, refuse
from lmmcl.steps import Evaluate, Finetune

BIG = """
name: big
orders: {main: [counting]}
benchmarks: {held_out: [colour]}
grids:
  - {model: [llava-onevision-7b], recipe: [RECIPE]}
"""
ONE_GPU = {"workers": 1, "gpus_per_worker": 1, "micro_batch_size": 1}


def step(folder: Path, kind: type = Finetune, recipe: str = "full") -> Any:
    sweep = load_sweep(write_sweep(folder, BIG.replace("RECIPE", recipe), f"{recipe}.yaml"))
    return next(each for each in sweep.steps.values() if isinstance(each, kind))


def cluster(gb: float = 80, **training: Any) -> Cluster:
    return Cluster.model_validate({"training": {**ONE_GPU, **training}, "gpu_memory_gb": gb})


@pytest.mark.parametrize("recipe", ["full", "llm", "gate_up"])
def test_what_the_refusal_names_does_fit(recipe: str, tmp_path: Path) -> None:
    stage = step(tmp_path, recipe=recipe)
    with pytest.raises(UserError, match=r"but only 80\.0 GB is available") as refused:
        check_stage(stage, cluster())
    remedies = re.findall(r"\{.*?\}", refused.value.message)
    assert any("deepspeed" in each for each in remedies)
    for remedy in remedies:
        check_stage(stage, cluster(**yaml.safe_load(remedy)))


def test_attention_of_a_7b_trains_on_one_gpu_and_so_does_its_lora(tmp_path: Path) -> None:
    check_stage(step(tmp_path, recipe="sa_proj"), cluster())
    check_stage(step(tmp_path, recipe="lora"), cluster(gradient_checkpointing=True))


@pytest.mark.parametrize(
    ("recipe", "why"),
    [
        ("moe", "has experts that its recipe added"),
        ("moelora", "has experts that its recipe added"),
        ("lora], mitigation: [mr_lora", r"answers with several experts \(mr_lora\)"),
    ],
)
def test_another_engine_is_refused_for_what_is_not_a_plain_model(recipe: str, why: str, tmp_path: Path) -> None:
    sweep = load_sweep(write_sweep(tmp_path, BIG.replace("RECIPE", recipe)))
    engine = Cluster.model_validate({"evaluation": {"engine": "vllm", "gpus": 1}})
    reasons = find_infeasible(sweep, engine, sweep.steps.values(), lambda step: True)
    assert len(reasons) == 1 and re.search(f"vllm loads a plain model, and this checkpoint {why}", reasons[0])
    assert not find_infeasible(sweep, Cluster(), sweep.steps.values(), lambda step: True)


def test_a_part_of_a_gpu_has_so_much_of_its_memory(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"only 40\.0 GB"):
        check_stage(step(tmp_path, recipe="sa_proj"), cluster(gpus_per_worker=0.5))


def test_a_stage_that_nothing_makes_fit_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="trains less, or GPUs with more memory"):
        check_stage(step(tmp_path), cluster(gb=4))


def test_too_many_questions_at_a_time_are_refused_with_how_many_would_do(tmp_path: Path) -> None:
    asked = step(tmp_path, Evaluate)
    settings = {"evaluation": {"gpus": 1, "batch_size": 64}, "gpu_memory_gb": 24}
    with pytest.raises(UserError, match=r"batch_size: \d") as refused:
        check_asked(asked, Cluster.model_validate(settings))
    [size] = re.findall(r"Try batch_size: (\d+)", refused.value.message)
    for batch_size, fits in ((int(size), True), (int(size) + 1, False)):
        place = Cluster.model_validate({**settings, "evaluation": {"gpus": 1, "batch_size": batch_size}})
        if fits:
            check_asked(asked, place)
        else:
            with pytest.raises(UserError):
                check_asked(asked, place)
    with pytest.raises(UserError, match="Even batch_size 1 does not fit"):
        check_asked(asked, Cluster.model_validate({**settings, "gpu_memory_gb": 12}))


def plan(folder: Path, recipe: str, **training: Any) -> dict[str, Any]:
    (folder / "node.yaml").write_text(yaml.safe_dump(cluster(**training).model_dump(mode="json", exclude_unset=True)))
    sweep = write_sweep(folder, BIG.replace("RECIPE", recipe), f"{recipe}.yaml")
    return json.loads(lmmcl("plan", sweep, "--cluster", folder / "node.yaml", "--store", folder, "--json").stdout)


def test_a_plan_with_a_cluster_file_says_memory_and_refuses(tmp_path: Path) -> None:
    [trial] = plan(tmp_path, "sa_proj")["trials"]
    assert 20e9 < trial["gpu_bytes"]["total"] < 80e9
    with pytest.raises(UserError, match="needs about"):
        plan(tmp_path, "full")


def test_a_batch_that_cannot_be_cut_is_told_by_the_plan(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be shared by 3 workers; allowed numbers of workers: 1, 2, 4"):
        plan(tmp_path, "sa_proj", workers=3)


TIGHT = "training: {gpus_per_worker: 1}\nevaluation: {gpus: 1}\ngpu_memory_gb: 0.5\n"


def test_a_run_refuses_what_its_plan_refuses_and_not_what_is_recorded(tmp_path: Path, pretence: Pretence) -> None:  # noqa: F811
    sweep = write_sweep(tmp_path, SEARCH)
    (tmp_path / "tight.yaml").write_text(TIGHT)
    with pytest.raises(UserError, match="remove gpu_memory_gb to skip this check"):
        run(sweep, "--cluster", str(tmp_path / "tight.yaml"))
    assert not pretence.computed
    (tmp_path / "tried.yaml").write_text(TIGHT.replace("gpu_memory_gb: 0.5\n", ""))
    assert run(sweep, "--cluster", str(tmp_path / "tried.yaml")).exit_code == 0
    assert pretence.computed
    again = run(sweep, "--cluster", str(tmp_path / "tight.yaml"))
    assert again.exit_code == 0, "nothing is left that could not fit"


def test_a_mitigation_that_the_strategy_cannot_have_is_told_by_the_plan_and_holds_up_no_other_trial(
    tmp_path: Path,
) -> None:
    text = BIG.replace("recipe: [RECIPE]", "recipe: [sa_proj], mitigation: [null, l2_sp]")
    sweep = load_sweep(write_sweep(tmp_path, text))
    divided = cluster(workers=8, strategy="deepspeed", zero_stage=3)
    [told] = find_infeasible(sweep, divided, sweep.steps.values(), lambda step: True)
    assert "l2_sp reads weights or gradients" in told
    assert find_infeasible(sweep, divided, sweep.steps.values(), lambda step: True, of_all=False) == ()
    too_small = divided.model_copy(update={"gpu_memory_gb": 4.0})
    [told] = find_infeasible(sweep, too_small, sweep.steps.values(), lambda step: True, of_all=False)
    assert "needs about" in told


def test_the_store_is_asked_only_about_what_does_not_fit(tmp_path: Path) -> None:
    sweep = load_sweep(write_sweep(tmp_path, BIG.replace("RECIPE", "sa_proj, full")))
    asked: list[str] = []

    def is_missing(step: Any) -> bool:
        asked.append(step.label)
        return False

    assert find_infeasible(sweep, cluster(), sweep.steps.values(), is_missing) == ()
    assert asked == ["1-counting-full-lr5e-06-s0"]


def test_a_kind_of_step_is_judged_once_however_many_steps_are_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    axes = "learning_rate: [1.0e-5, 2.0e-5, 3.0e-5], seed: [0, 1]"
    text = BIG.replace("recipe: [RECIPE]", f"recipe: [llm, full], {axes}")
    sweep = load_sweep(write_sweep(tmp_path, text))
    judged: list[str] = []
    check = check_stage

    def counted(step: Finetune, place: Cluster) -> None:
        judged.append(step.recipe.name)
        check(step, place)

    monkeypatch.setattr("lmmcl.planning.fits.check_stage", counted)
    assert len(sweep.trials) == 12
    assert find_infeasible(sweep, cluster(), sweep.steps.values(), lambda step: False) == ()
    assert judged == ["llm", "full"]


def test_of_many_refusals_the_first_are_told() -> None:
    with pytest.raises(UserError) as refused:
        refuse([f"stage {number}" for number in range(30)])
    assert "stage 7" in str(refused.value) and "stage 8" not in str(refused.value)
    assert "22 more (`lmmcl plan --json` has all)" in str(refused.value)
