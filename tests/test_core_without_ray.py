"""Load, train, prove, write and ask need no Ray, MLflow or DeepSpeed: Ray is an adapter around them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CORE = "torch,transformers,peft,accelerate,safetensors,pydantic,pillow"
"""What a machine needs that trains and asks in one process; the last two are small."""
TESTS = Path(__file__).parent

STAGE_AND_EVALUATION = """
import sys
from stage_parts import BASE, stage

from lmmcl.config.cluster import Cluster
from lmmcl.config.settings import Evaluation
from lmmcl.ledger import Ledger
from lmmcl.runner.execute import compute
from lmmcl.steps import Evaluate
from lmmcl.tasks import get_benchmark

ledger, cluster, step = Ledger(STORE), Cluster(), stage()
compute([BASE], ledger, cluster, lambda *_: None)
compute([step], ledger, cluster, lambda *_: None)
question = Evaluate(step, get_benchmark("colour"), Evaluation(limit=4, precision="fp32"))
compute([question], ledger, cluster, lambda *_: None)
print("proved", ledger.find(step)["proof"]["moved"], "asked", len(ledger.find(question)["sample_scores"]))
"""

SWEEP = """
import sys
from pathlib import Path
from made import write_sweep

import lmmcl.cli

sweep = write_sweep(Path(STORE).parent)
settings = ["training.max_steps=2", "grids.0.recipe=[sa_proj]", "grids.0.learning_rate=[0.001]"]
sys.argv = ["lmmcl", "run", str(sweep), "--inline", "--mlflow", "off", "--store", STORE]
sys.argv += [word for setting in settings for word in ("--set", setting)]
try:
    lmmcl.cli.main()
except SystemExit as end:
    assert not end.code, end.code
"""

WORKERS = """
from stage_parts import BASE, stage

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.ledger import Ledger
from lmmcl.training.finetune import finetune

finetune(stage(), Ledger(STORE), TrainingPlacement(workers=2))
"""


def run(choice: str, packages: str, code: str, store: Path) -> subprocess.CompletedProcess[str]:
    """`code` in a Python of its own that has only, or all but, some packages."""
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    return subprocess.run(
        [sys.executable, str(TESTS / "without_packages.py"), choice, packages, f"STORE = {str(store)!r}\n{code}"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""},
        timeout=300,
    )


def test_a_stage_and_an_evaluation_run_where_only_the_core_packages_are_installed(tmp_path: Path) -> None:
    done = run("--only", CORE, STAGE_AND_EVALUATION, tmp_path / "store")
    assert done.returncode == 0, done.stderr
    assert "asked 4" in done.stdout and "proved 0" not in done.stdout


def test_a_sweep_runs_inline_and_is_reported_where_ray_mlflow_and_deepspeed_are_missing(tmp_path: Path) -> None:
    done = run("--without", "ray,mlflow,deepspeed", SWEEP, tmp_path / "store")
    assert done.returncode == 0, done.stderr
    assert "1 trial (1 done)" in done.stdout
    assert (tmp_path / "store" / "reports" / "small" / "index.html").is_file()


def test_a_worker_group_without_ray_is_refused_with_the_ways_out(tmp_path: Path) -> None:
    done = run("--without", "ray", WORKERS, tmp_path / "store")
    assert "training.workers: 2 workers need Ray, which is not installed; set workers: 0" in done.stderr


def test_what_a_machine_is_said_to_lack_cannot_be_imported(tmp_path: Path) -> None:
    done = run("--without", "ray", "import ray", tmp_path)
    assert "ModuleNotFoundError: No module named 'ray'" in done.stderr


def test_the_core_imports_no_ray() -> None:
    rooms = (
        "training.finetune, lmmcl.weights.checkpoint, lmmcl.evaluation.evaluate, lmmcl.runner.execute, lmmcl.runner.run"
    )
    code = f"import sys, lmmcl.{rooms}\nprint([name for name in ('ray', 'mlflow', 'deepspeed') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
