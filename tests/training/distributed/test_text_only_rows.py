"""Rows without an image among others: workers that share an update neither wait for each other nor end in other weights."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from group_parts import TOLERANCE
from stage_parts import difference, made_skill, shades, stage, weights

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.ledger import Ledger
from lmmcl.steps import Finetune
from lmmcl.tasks.examples import ask
from lmmcl.training.finetune import finetune

# DeepSpeed compiles an operation of its own the first time, which takes minutes on a busy machine.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

TESTS = Path(__file__).parents[2]
CODE = """
import sys
sys.path.insert(0, {here})
from test_text_only_rows import mixed
from lmmcl.config.cluster import TrainingPlacement
from lmmcl.ledger import Ledger
from lmmcl.training.finetune import finetune

finetune(mixed({recipe}), Ledger(sys.argv[1]), TrainingPlacement(**{placement}))
"""


def mixed(recipe: str) -> Finetune:
    words = [ask(f"words-{n}", "what is one and one ?", "two") for n in range(3)]
    rows = [*shades(3), words[0], *shades(2), *words[1:]]
    return stage(skill=made_skill("mixed", rows), recipe=recipe, global_batch_size=4, max_steps=4)


@pytest.mark.parametrize(
    ("recipe", "placement"),
    [
        ("vision", {}),
        ("full", {}),
        ("full", {"workers": 2, "strategy": "deepspeed", "zero_stage": 2}),
        ("vision", {"workers": 2, "strategy": "deepspeed", "zero_stage": 3}),
        ("full", {"workers": 2, "strategy": "deepspeed", "zero_stage": 3}),
    ],
    ids=["vision-ddp", "full-ddp", "full-zero2", "vision-zero3", "full-zero3"],
)
def test_two_workers_end_in_the_weights_of_one(recipe: str, placement: dict, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    code = CODE.replace("{here}", repr(str(Path(__file__).parent))).replace("{recipe}", repr(recipe))
    script.write_text(code.replace("{placement}", repr({**placement, "micro_batch_size": 1})))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
    }
    done = subprocess.run(
        [*command, str(tmp_path / "two")], capture_output=True, text=True, env=environment, timeout=900, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = Ledger(str(tmp_path / "one")), Ledger(str(tmp_path / "two"))
    step = mixed(recipe)
    finetune(step, one, TrainingPlacement())
    assert difference(weights(step, one), weights(step, two)) < TOLERANCE
