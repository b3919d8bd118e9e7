"""Two sweeps that share steps, at once on one cluster: each shared step is computed once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from made import write_sweep
from store_watch import StoreWatch

from lmmcl.config.sweep import load_sweep
from lmmcl.ledger import Ledger

sys.path.insert(0, str(Path(__file__).parents[1]))
from processes import Command

SWEEP = """
name: NAME
orders: {main: [counting, LAST]}
benchmarks: {held_out: [colour]}
training: {max_steps: 60, examples: 320, global_batch_size: 16, precision: fp32}
evaluation: {precision: fp32, limit: 12}
grids:
  - {model: [tiny-onevision], recipe: [sa_proj, gate_up], learning_rate: [1.0e-3]}
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_sweeps_at_once_on_one_cluster_compute_each_shared_step_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    for name, last in {"one": "clock", "two": "digits"}.items():
        write_sweep(tmp_path, SWEEP.replace("NAME", name).replace("LAST", last), f"{name}.yaml")
    sweeps = [load_sweep(tmp_path / f"{name}.yaml") for name in ("one", "two")]
    shared = set(sweeps[0].steps) & set(sweeps[1].steps)
    assert len({sweeps[0].steps[key].kind for key in shared}) == 3, "the base model, its scores, two fine-tunes, theirs"
    (tmp_path / "node.yaml").write_text("driver: {resources: {head: 0.001}}\n")
    watch = StoreWatch(tmp_path / "store").start()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "resources": {"head": 10}})
    try:
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        words = ["--store", "store", "--cluster", "node.yaml", "--mlflow", "off"]
        both = [Command("run", f"{name}.yaml", *words, cwd=tmp_path) for name in ("one", "two")]
        for command in both:
            assert command.wait(600) == 0, command.output
    finally:
        cluster.shutdown()
        watch.stop()
    ledger = Ledger(str(tmp_path / "store"))
    for sweep in sweeps:
        assert all(ledger.find(step) for step in sweep.steps.values())
    wanted = set(sweeps[0].steps) | set(sweeps[1].steps)
    assert watch.starts() == dict.fromkeys(wanted, 1)
