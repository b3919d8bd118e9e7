"""How many trials are open follows the cluster as it grows and shrinks; few trials on CPUs open no more than keep these busy."""

from __future__ import annotations

import pytest

from lmmcl.config.cluster import Cluster
from lmmcl.runner.ray_backend import concurrency, tune
from lmmcl.runner.ray_backend.steps_actor import Load

BUSY = Load(waiting=2, computing=2)
IDLE = Load(waiting=2, computing=1)
STARTING = Load(waiting=0, computing=1)


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
    grid = tune._Grid(concurrency.ConcurrencyLimit(Cluster(), 100))
    seen = [grid.max_concurrent]
    for cpus in (5.0, 2.0):
        resources["CPU"] = cpus
        seen.append(grid.max_concurrent)
    assert seen == [2, 10, 4]


def opened(monkeypatch: pytest.MonkeyPatch, loads: list[Load], trials: int = 6, **settings: object) -> list[int]:
    """How many trials may be open at each of the `loads` that the steps actor tells, on two CPUs."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(concurrency.ray, "cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.setattr(concurrency, "RECOUNT_SECONDS", -1.0)
    coming = iter(loads)
    limit = concurrency.ConcurrencyLimit(Cluster.model_validate(settings), trials, lambda: next(coming))
    return [limit() for _ in loads]


def test_few_trials_on_cpus_open_as_many_as_these_keep_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert opened(monkeypatch, [STARTING, STARTING, BUSY, IDLE, BUSY]) == [2] * 5, "idle for a moment is not idle"
    assert opened(monkeypatch, [BUSY] * 3, trials=1) == [1] * 3


def test_one_more_is_opened_whenever_all_wait_and_a_cpu_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = Load(waiting=3, computing=0)
    assert opened(monkeypatch, [IDLE, IDLE, BUSY, waits, waits, waits._replace(waiting=4), IDLE]) == [
        2,
        3,
        3,
        3,
        4,
        4,
        4,
    ]


def test_many_trials_and_steps_on_gpus_have_a_driver_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    assert opened(monkeypatch, [BUSY], trials=9) == [4]
    assert opened(monkeypatch, [BUSY], training={"workers": 2}) == [2], "one group fits"
    assert opened(monkeypatch, [BUSY], max_open_trials=5) == [5]


def test_where_scores_may_end_trials_a_driver_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(concurrency.ray, "cluster_resources", lambda: {"CPU": 2.0})
    assert concurrency.ConcurrencyLimit(Cluster(), 6)() == 4
