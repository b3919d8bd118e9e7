"""Changed cluster files: each plans the same sweep with the same keys, or is refused with one message."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml
from generated.mutations import OF_YAML, OTHERS, SIZES, Tally, explore, mutated, seen_values
from synthetic_ledger import finished_sweep

from lmmcl.config import cluster as placement
from lmmcl.config.cluster import Cluster, load_cluster
from lmmcl.config.validation import read_yaml
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.planning.plan import make_plan, plan_table
from lmmcl.terminal import wide_console

SHIPPED = [read_yaml(path) for path in sorted((Path(__file__).parents[2] / "cluster").glob("*.yaml"))]
FULL: dict[str, Any] = {
    "ray": {"address": "auto", "cpus": 4, "resources": {"big": 2.0}, "dashboard": True},
    "training": {
        "workers": 4, "min_workers": 2, "cpus_per_worker": 2.0, "gpus_per_worker": 1.0, "resources_per_worker": {"big": 0.5},
        "strategy": "ddp", "micro_batch_size": "auto", "attention": "eager", "compile": True, "encodings_gb": 2.5, "max_failures": 1,
    },
    "evaluation": {"cpus": 2.0, "gpus": 0.5, "resources": {"big": 0.5}, "batch_size": 8, "engine": "transformers"},
    "driver": {"resources": {"head": 0.001}},
    "claims": {"enabled": True, "expiry_s": 60.0, "poll_s": 1.0},
    "store": "stored", "tracking": ["mlflow", "tensorboard"], "pack": True, "gpu_memory_gb": 24.0, "max_open_trials": 3,
}  # fmt: skip
ADDITIONS = {
    "": list(Cluster.model_fields),
    "training": list(placement.TrainingPlacement.model_fields),
    "evaluation": list(placement.EvaluationPlacement.model_fields),
    "claims": list(placement.ClaimSettings.model_fields),
}


@pytest.mark.parametrize("examples", SIZES)
def test_a_changed_cluster_file_plans_the_same_steps_or_is_refused(
    examples: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = finished_sweep(tmp_path)
    ledger, path, tally = Ledger(str(tmp_path / "store")), tmp_path / "changed.yaml", Tally()

    def read(data: Any) -> bool:
        path.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
        try:
            cluster = load_cluster(path)
        except UserError as error:
            str(error).encode()
            return False
        assert pickle.loads(pickle.dumps(cluster)) == cluster  # as it goes to Ray's processes
        assert cluster.training.fewest_workers >= 1 and cluster.training.strategy_name
        try:
            plan = make_plan(sweep, ledger, cluster)
            json.dumps(plan.to_dict())
            with (console := wide_console()).capture():
                console.print(plan_table(plan))
            plan.refuse_infeasible()
        except UserError as error:
            str(error).encode()
        return True

    bases = [FULL, *SHIPPED]
    explore(read, mutated(bases, seen_values(bases), additions=ADDITIONS, wild=[*OTHERS, *OF_YAML]), examples, tally)
    assert all(ledger.has(step) for step in sweep.steps.values())
    tally.check("cluster files", capsys)
