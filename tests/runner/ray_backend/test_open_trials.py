"""How many trials are open follows the cluster as it grows and shrinks."""

from __future__ import annotations

import pytest

from lmmcl.config.cluster import Cluster
from lmmcl.runner.ray_backend import concurrency, tune


def open_on(monkeypatch: pytest.MonkeyPatch, resources: dict[str, float], trials: int = 100, **settings: object) -> int:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(concurrency.ray, "cluster_resources", lambda: resources)
    return concurrency.open_trials(Cluster.model_validate(settings), trials)


def test_twice_as_many_trials_are_open_as_fine_tunes_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_on(monkeypatch, {"CPU": 4}) == 8
    group = {"workers": 4, "gpus_per_worker": 1, "cpus_per_worker": 6}
    assert open_on(monkeypatch, {"CPU": 96, "GPU": 8}, training=group) == 4
    assert open_on(monkeypatch, {"CPU": 96, "GPU": 8}, trials=3, training=group) == 3
    assert open_on(monkeypatch, {"CPU": 96, "GPU": 8}, training={**group, "min_workers": 2}) == 8, (
        "groups may be smaller"
    )
    assert open_on(monkeypatch, {"CPU": 96, "GPU": 8}, training=group, max_open_trials=16) == 16


def test_on_a_joined_cluster_without_nodes_enough_trials_wait_to_make_it_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict = {"ray": {"address": "auto"}, "training": {"workers": 1, "gpus_per_worker": 1}}
    assert open_on(monkeypatch, {"head": 1}, **settings) == 8
    assert open_on(monkeypatch, {"head": 1, "CPU": 32, "GPU": 8}, **settings) == 16


def test_the_count_is_taken_again_as_the_cluster_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    resources = {"CPU": 1.0}
    monkeypatch.setattr(concurrency.ray, "cluster_resources", lambda: resources)
    monkeypatch.setattr(concurrency, "RECOUNT_SECONDS", 0.0)
    grid = tune._Grid(Cluster(), 100)
    seen = [grid.max_concurrent]
    for cpus in (5.0, 2.0):
        resources["CPU"] = cpus
        seen.append(grid.max_concurrent)
    assert seen == [2, 10, 4]
