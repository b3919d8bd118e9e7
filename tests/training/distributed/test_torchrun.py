"""Processes that torchrun started train one stage together, without Ray, to the weights of one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from group_parts import TOLERANCE, difference, losses, stage

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.ledger import Ledger
from lmmcl.training.finetune import finetune

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TESTS = Path(__file__).parents[2]
CODE = """
import sys
from group_parts import stage
from lmmcl.config.cluster import TrainingPlacement
from lmmcl.ledger import Ledger
from lmmcl.training.finetune import finetune

record = finetune(stage(), Ledger(sys.argv[1]), TrainingPlacement(**{placement}))
print("workers", record["strategy"]["workers"], [name for name in ("ray",) if name in sys.modules])
"""


def torchrun(folder: Path, **placement: object) -> subprocess.CompletedProcess[str]:
    script = folder / "script.py"
    script.write_text(CODE.replace("{placement}", repr(placement)))
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


def test_another_number_of_workers_than_torchrun_started_is_refused(tmp_path: Path) -> None:
    done = torchrun(tmp_path, workers=3)
    assert done.returncode != 0
    assert "torchrun started 2 processes, and the cluster file asks for 3 workers; set workers: 2" in done.stderr
