"""Cluster files say where and how, and never what."""

from __future__ import annotations

from pathlib import Path

import pytest
from made import write_sweep

from lmmcl.config.cluster import Cluster, load_cluster
from lmmcl.errors import UserError

FILES = sorted((Path(__file__).parents[2] / "cluster").glob("*.yaml"))


def test_every_cluster_file_that_ships_can_be_read_and_says_what_it_costs_to_idle() -> None:
    assert len(FILES) >= 2
    for path in FILES:
        load_cluster(path)
        assert "idle" in path.read_text().split("\n\n")[0], path


def test_local_is_what_runs_when_no_file_is_named() -> None:
    [local] = [path for path in FILES if path.stem == "local"]
    assert load_cluster(local) == Cluster() == load_cluster(None)


def test_a_misspelt_setting_is_refused_with_the_near_one(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, "training: {worker: 2}\n", "cluster.yaml")
    with pytest.raises(UserError, match=r"cluster\.yaml: training: .*did you mean 'workers'"):
        load_cluster(path)


def test_a_cpu_is_asked_more_questions_at_once_than_a_gpu_unless_the_file_says_how_many() -> None:
    asked = [
        Cluster.model_validate({"evaluation": each}).evaluation.batch_size for each in ({}, {"gpus": 1}, {"gpus": 0.5})
    ]
    assert asked == [128, 64, 64]
    for gpus in (0, 1):
        assert Cluster.model_validate({"evaluation": {"gpus": gpus, "batch_size": 7}}).evaluation.batch_size == 7
