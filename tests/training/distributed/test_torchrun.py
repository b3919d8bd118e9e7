"""Processes that torchrun started train one stage together, without Ray, to the weights of one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from group_parts import TOLERANCE, difference, losses, stage
from made import SWEEP, write_sweep
from own_data import write_receipts

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.ledger import Ledger
from lmmcl.methods.losses.lwf import LwF
from lmmcl.training.finetune import finetune

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TESTS = Path(__file__).parents[2]
CODE = """
import sys
from group_parts import stage
from lmmcl.config.cluster import TrainingPlacement
from lmmcl.ledger import Ledger
from lmmcl.methods.losses.lwf import LwF
from lmmcl.training.finetune import finetune

record = finetune(stage(), Ledger(sys.argv[1]), TrainingPlacement(**{placement}))
ray = [name for name in ("ray",) if name in sys.modules]
sys.stdout.write(f"workers {record['strategy']['workers']} {ray}\\n")  # at once: two processes share the pipe
"""


QUANTISED = """
from lmmcl.models import get_model
from lmmcl.models.inputs.model_settings import ModelSettings
from lmmcl.models.quantized.base_settings import BaseSettings
from lmmcl.steps import Pretrained

RECIPE = {"lora_all": {"rank": 4, "dropout": 0}}


def held():
    settings = ModelSettings(base=BaseSettings(quantize="nf4"))
    return Pretrained(get_model("tiny-onevision").with_settings(settings))
"""


PREEMPTED = """
import os
import signal
import sys
from pathlib import Path
from group_parts import stage
from lmmcl.config.cluster import TrainingPlacement
from lmmcl.ledger import Ledger
from lmmcl.methods.losses.lwf import LwF
from lmmcl.methods.mitigation import TrainingMitigation
from lmmcl.training.finetune import finetune

DIARY = Path(sys.argv[1]).with_name("diary")


class ToldAtThree(TrainingMitigation):
    name = "told_at_three"
    version = 1

    def optimizer(self, memory, model, optimizer):
        def live(*_):
            if os.environ["RANK"] == "1":  # one of two processes gets the signal, once
                with DIARY.open("a") as diary:
                    diary.write("update\\n")
                if len(DIARY.read_text().splitlines()) == 3:
                    os.kill(os.getpid(), signal.SIGTERM)

        optimizer.register_step_post_hook(live)


record = finetune(stage(mitigation=ToldAtThree()), Ledger(sys.argv[1]), TrainingPlacement())
print("updates", record["updates"])
"""


def torchrun(folder: Path, code: str = CODE, **placement: object) -> subprocess.CompletedProcess[str]:
    script = folder / "script.py"
    script.write_text(code.replace("{placement}", repr(placement)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, str(folder / "two")], capture_output=True, text=True, env=environment, timeout=300, cwd=folder
    )


def test_two_processes_of_torchrun_train_to_the_weights_of_one(tmp_path: Path) -> None:
    done = torchrun(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("workers 2 []") == 2, "both processes have the record, and neither imported Ray"
    one, two = Ledger(str(tmp_path / "one")), Ledger(str(tmp_path / "two"))
    finetune(stage(), one, TrainingPlacement())
    assert losses(stage(), two) == pytest.approx(losses(stage(), one), abs=1e-4)
    assert difference(stage(), one, two) < TOLERANCE
    assert not (tmp_path / "two" / "runs" / stage().key).exists()


@pytest.mark.parametrize("recipe", ["full", "sa_proj"], ids=["head trains", "head stays"])
def test_lwf_over_two_processes_is_that_of_one(recipe: str, tmp_path: Path) -> None:
    """Each process keeps what its rows need of the start model, and takes its part of the head's gradient."""
    code = CODE.replace("finetune(stage()", f"finetune(stage(mitigation=LwF(weight=4.0), recipe={recipe!r})")
    done = torchrun(tmp_path, code.replace("import sys\n", "import sys\nfrom lmmcl.methods.losses.lwf import LwF\n", 1))
    assert done.returncode == 0, done.stderr
    step, one, two = (
        stage(mitigation=LwF(weight=4.0), recipe=recipe),
        Ledger(str(tmp_path / "one")),
        Ledger(str(tmp_path / "two")),
    )
    finetune(step, one, TrainingPlacement())
    assert losses(step, two) == pytest.approx(losses(step, one), abs=1e-4)
    assert difference(step, one, two) < TOLERANCE


def test_two_processes_train_over_a_quantised_base_to_the_adapters_of_one(tmp_path: Path) -> None:
    code = QUANTISED + CODE.replace("finetune(stage()", "finetune(stage(recipe=RECIPE, parent=held())")
    done = torchrun(tmp_path, code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("workers 2") == 2
    scope: dict[str, Any] = {}
    exec(QUANTISED, scope)  # the same step as in the processes
    step = stage(recipe=scope["RECIPE"], parent=scope["held"]())
    one, two = Ledger(str(tmp_path / "one")), Ledger(str(tmp_path / "two"))
    finetune(step, one, TrainingPlacement())
    assert losses(step, two) == pytest.approx(losses(step, one), abs=1e-4)
    assert difference(step, one, two) < TOLERANCE


def test_another_number_of_workers_than_torchrun_started_is_refused(tmp_path: Path) -> None:
    done = torchrun(tmp_path, workers=3)
    assert done.returncode != 0
    assert "torchrun started 2 processes, and the cluster file asks for 3 workers; set workers: 2" in done.stderr


def test_where_one_process_is_told_to_end_all_save_and_the_next_run_goes_on_from_there(tmp_path: Path) -> None:
    told = torchrun(tmp_path, PREEMPTED)
    assert (
        told.returncode != 0
        and told.stderr.count("PreemptedError: stopped by a termination request; saved after update 3") >= 1
    )
    assert not Ledger(str(tmp_path / "two")).paths()
    done = torchrun(tmp_path, PREEMPTED)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("updates 6") == 2
    assert len((tmp_path / "diary").read_text().splitlines()) == 6, "no update was made twice"


def lmmcl_run(sweep: Path, store: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """`lmmcl run --inline` in two processes, as the cluster file says."""
    cluster = sweep.parent / "two.yaml"
    cluster.write_text("training: {workers: 2}\n")
    run = ["run", str(sweep), "--inline", "--mlflow", "off", "--store", str(store), "--cluster", str(cluster), *more]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "lmmcl",
        *run,
    ]
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500, cwd=sweep.parent)


def test_a_sweep_runs_inline_under_torchrun_and_each_stage_in_both_processes(tmp_path: Path) -> None:
    grid = ["grids.0.recipe=[sa_proj]", "grids.0.learning_rate=[0.001]", "training.max_steps=2"]
    settings = [word for setting in grid for word in ("--set", setting)]
    done = lmmcl_run(write_sweep(tmp_path), tmp_path / "store", *settings)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("1 trial (1 done)") == 1, "one process reports"
    ledger = Ledger(str(tmp_path / "store"))
    stages = [ledger.read(path) for path in ledger.paths()]
    trained = [stage["strategy"] for stage in stages if stage and stage["kind"] == "finetune"]
    assert [(strategy["name"], strategy["workers"]) for strategy in trained] == [("ddp", 2)] * 2


def test_a_stage_that_fails_in_all_processes_fails_its_trial_and_the_next_one_is_trained(tmp_path: Path) -> None:
    write_receipts(tmp_path / "data", rows=16)
    write_receipts(tmp_path / "torn", rows=16)
    for cut in sorted((tmp_path / "torn").rglob("*.png"))[:2]:
        cut.write_bytes(cut.read_bytes()[:-40])
    write_receipts(tmp_path / "data", rows=4, name="test.json", seed=1)
    text = yaml.safe_load(SWEEP) | {
        "skills": {
            name: {"train": f"{folder}/train.json", "test": "data/test.json", "metric": "anls"}
            for name, folder in (("whole", "data"), ("broken", "torn"))
        },
        "orders": {"bad": ["broken"], "good": ["whole"]},
        "benchmarks": {"held_out": ["colour"]},
        "training": {"epochs": 1, "global_batch_size": 16, "precision": "fp32"},
        "grids": [{"model": ["tiny-onevision"], "recipe": ["gate_up"], "order": ["bad", "good"]}],
    }
    done = lmmcl_run(write_sweep(tmp_path, yaml.safe_dump(text)), tmp_path / "store")
    assert done.returncode != 0 and "skill broken" in done.stdout, done.stderr
    assert "2 trials (1 done, 1 failed)" in done.stdout, done.stdout
