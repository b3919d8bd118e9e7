"""What runs where: the resources requested from Ray for drivers, the steps actor and each kind of step; what a driver's process must not load."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made import made_trial

from lmmcl.config.cluster import Cluster, load_cluster
from lmmcl.ledger import Ledger
from lmmcl.runner.ray_backend import concurrency, steps_actor
from lmmcl.runner.ray_backend.concurrency import DRIVER, WAITING_CPUS, driver_resources
from lmmcl.runner.ray_backend.gpu_workers import Share
from lmmcl.runner.ray_backend.steps_actor import RayExecutor, StepsActor, start_steps_actor
from lmmcl.steps import Checkpoint

CLUSTERS = Path(__file__).parents[3] / "cluster"
HEAD = {"driver": {"resources": {"head": 0.001}}}
GPUS = {"training": {"gpus_per_worker": 1, "cpus_per_worker": 6}, "evaluation": {"gpus": 0.5, "cpus": 2}}


def placed(tmp_path: Path, step: Checkpoint | None, **settings: Any) -> dict[str, Any]:
    """What Ray is asked for when `step` is computed (None: when benchmarks are asked)."""
    executor = RayExecutor(Ledger(str(tmp_path)), Cluster.model_validate(settings))
    asked: list[dict[str, Any]] = []

    async def take(function: Any, options: dict[str, Any], steps: Any) -> None:
        asked.append(options)

    executor._try = take  # type: ignore[method-assign]
    asyncio.run(executor([step] if step else made_trial().stages[0].asked))
    [options] = asked
    return {name: options[name] for name in ("num_cpus", "num_gpus", "resources")}


def test_the_steps_actor_lives_on_nodes_for_drivers_and_comes_back_when_it_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, Any] = {}

    def options(**given: Any) -> Any:
        found.update(given)
        return SimpleNamespace(remote=lambda *_: None)

    monkeypatch.setattr(steps_actor.ray, "remote", lambda kind: SimpleNamespace(options=options))
    start_steps_actor(Ledger(str(tmp_path)), Cluster.model_validate(HEAD))
    assert (found["num_cpus"], found["resources"], found["max_restarts"]) == (0, {"head": 0.001}, -1)
    assert "num_gpus" not in found


@pytest.mark.parametrize(
    ("settings", "have", "expected"),
    [
        (HEAD, {"head": 1, "GPU": 8}, {"CPU": 0, "head": 0.001}),
        ({}, {"CPU": 2, DRIVER: 1000}, {"CPU": 0, DRIVER: 1}),
        ({"ray": {"address": "auto"}}, {"CPU": 16, "GPU": 8}, {"CPU": WAITING_CPUS}),
    ],
)
def test_a_driver_holds_no_gpu_and_stays_where_the_file_says(
    settings: dict, have: dict, expected: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(concurrency.ray, "cluster_resources", lambda: have)
    assert driver_resources(Cluster.model_validate(settings)) == expected


def test_the_file_for_spot_nodes_keeps_drivers_and_actor_off_them() -> None:
    assert load_cluster(CLUSTERS / "autoscaling.yaml").driver.resources == {"head": 0.001}


def test_a_stage_takes_its_gpus_itself_or_waits_beside_the_drivers_for_a_group_that_does(tmp_path: Path) -> None:
    stage = made_trial().stages[1].checkpoint
    assert placed(tmp_path, stage, **GPUS, **HEAD) == {"num_cpus": 6, "num_gpus": 1, "resources": {}}
    group = {**GPUS, "training": {**GPUS["training"], "workers": 4}}
    assert placed(tmp_path, stage, **group, **HEAD) == {"num_cpus": 0, "num_gpus": 0, "resources": {"head": 0.001}}


def test_two_evaluations_may_share_a_gpu(tmp_path: Path) -> None:
    assert placed(tmp_path, None, **GPUS) == {"num_cpus": 2, "num_gpus": 0.5, "resources": {}}


@pytest.mark.parametrize(
    ("changes", "stage", "evaluation"),
    [
        ({}, Share(6, 1), Share(6, 1)),
        ({"evaluation": {"gpus": 0.5, "cpus": 2}}, Share(6, 1), Share(2, 0.5)),
        ({"evaluation": {"gpus": 1, "cpus": 2, "resources": {"a100": 1}}}, Share(6, 1), Share(2, 1, (("a100", 1),))),
    ],
)
def test_a_stage_and_its_evaluation_follow_each_other_on_one_worker_where_they_take_the_same_gpus(
    changes: dict[str, Any], stage: Share, evaluation: Share, tmp_path: Path
) -> None:
    settings = {**GPUS, "evaluation": {"gpus": 1, "cpus": 2}, **changes}
    executor = RayExecutor(Ledger(str(tmp_path)), Cluster.model_validate(settings))
    asked: list[tuple[Share, set[str], str]] = []

    async def call(share: Share, *_: Any, near: set[str], leaves: str) -> None:
        asked.append((share, near, leaves))

    executor._gpu_workers = SimpleNamespace(call=call)  # type: ignore[assignment]
    first, second = made_trial().stages[1:3]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(steps_actor.ray, "get_runtime_context", lambda: SimpleNamespace(current_actor=None))
        asyncio.run(executor([second.checkpoint]))
        asyncio.run(executor(first.evaluations))
    (trains, parents, trained), (asks, of, loaded) = asked
    assert (trains, asks) == (stage, evaluation)
    assert parents == {first.checkpoint.key} == of
    assert (trained, loaded) == (second.checkpoint.key, first.checkpoint.key)


def test_a_stage_of_a_worker_group_has_the_gpus_of_idle_workers_until_its_first_update(tmp_path: Path) -> None:
    group = {**GPUS, "training": {**GPUS["training"], "workers": 4}}
    actor = StepsActor(Ledger(str(tmp_path)), Cluster.model_validate(group))
    executor, stage = actor._executor, made_trial().stages[1].checkpoint
    ended: list[int] = []
    executor._gpu_workers.end_idle = lambda: ended.append(1)  # type: ignore[method-assign]
    waits: list[bool] = []

    async def take(*_: Any) -> None:
        for shown in ({"doing": "loading the model"}, {"update": 1}):
            await actor.note(stage.key, shown)
            waits.append(executor._gpu_workers._wanted())

    executor._try = take  # type: ignore[method-assign]
    asyncio.run(executor([stage]))
    assert (ended, waits, executor.unplaced) == ([1], [True, False], set())


def test_what_reads_and_writes_weights_alone_takes_no_gpu_and_not_the_head(tmp_path: Path) -> None:
    merged = made_trial(mitigation="wise_ft").stages[1].checkpoint
    base = made_trial().stages[0].checkpoint
    for step in (merged, base):
        assert placed(tmp_path, step, **GPUS, **HEAD) == {"num_cpus": 2, "num_gpus": 0, "resources": {}}


def test_the_processes_that_only_wait_load_no_models_library() -> None:
    """Drivers and the steps actor: 200 of them are held open on a large cluster, beside whom others compute."""
    heavy = ("torch", "transformers", "mlflow", "peft", "accelerate", "datasets", "scipy", "matplotlib")
    code = f"import sys, lmmcl.runner.ray_backend.tune, lmmcl.runner.ray_backend.steps_actor; print([name for name in {heavy} if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.strip() == "[]"
