"""A process computes on one GPU for all its life: where Ray would hand it another, it ends with its task."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import ray

from lmmcl.runner.ray_backend import gpu_tasks
from lmmcl.runner.ray_backend.gpu_tasks import gpu_task, takes_all_gpus


@pytest.mark.parametrize(
    ("on_nodes", "gpus", "takes_all"),
    [
        ([1], 1, True),
        ([0, 1, 1], 1, True),
        ([1], 0.5, True),
        ([2], 1, False),
        ([1, 8], 1, False),
        ([2], 2, True),
        ([8], 2, False),
        ([], 1, False),
        ([0], 1, False),
    ],
)
def test_a_process_stays_where_a_task_takes_all_gpus_of_any_node(
    on_nodes: list[int], gpus: float, takes_all: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": 4, **({"GPU": count} if count else {})}} for count in on_nodes]
    gone = {"Alive": False, "Resources": {"GPU": 16}}
    monkeypatch.setattr(gpu_tasks.ray, "nodes", lambda: [*nodes, gone])
    assert takes_all_gpus(gpus) is takes_all


@pytest.mark.slow
@pytest.mark.parametrize(("gpus", "count"), [(0, 2), (1, 1), (1, 2)])
def test_no_process_is_given_a_second_gpu(gpus: int, count: int, tmp_path: Path) -> None:
    ray.init(address="local", num_cpus=2, num_gpus=count, include_dashboard=False, log_to_driver=False)

    def where() -> tuple[int, tuple[int, ...]]:  # local, so that Ray sends its code
        return os.getpid(), tuple(ray.get_gpu_ids())

    try:
        seen: dict[int, set[Any]] = {}
        for _ in range(4):
            task = gpu_task(where, gpus).options(num_gpus=gpus, num_cpus=1)
            for process, ids in ray.get([task.remote(), task.remote()]):
                seen.setdefault(process, set()).add(ids)
        assert all(len(ids) == 1 for ids in seen.values()), seen
        assert len(seen) == 8 if (gpus, count) == (1, 2) else len(seen) <= 2
    finally:
        ray.shutdown()
