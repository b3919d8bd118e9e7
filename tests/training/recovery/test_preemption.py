"""A stage that is asked to end saves where it is, and resumes from there to the same weights."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.config.settings import Training
from lmmcl.ledger import Ledger
from lmmcl.methods.mitigation import TrainingMitigation
from lmmcl.methods.recipes.recipe import get_recipe
from lmmcl.models import get_model
from lmmcl.steps import Finetune, Pretrained
from lmmcl.tasks.examples import Example, ask
from lmmcl.tasks.skills import Benchmark, Skill
from lmmcl.training.finetune import finetune
from lmmcl.training.ray_train.retry_policy import PreemptedError


class ToldAtThree(TrainingMitigation):
    """Sends SIGTERM to its own process in the third update, once; `diary` gets a line for each update."""

    name = "told_at_three"
    version = 1
    diary: str

    def optimizer(self, memory: Any, model: Any, optimizer: torch.optim.Optimizer) -> None:
        def live(*_: Any) -> None:
            with Path(self.diary).open("a") as diary:
                diary.write("update\n")
            if len(Path(self.diary).read_text().splitlines()) == 3:
                os.kill(os.getpid(), signal.SIGTERM)

        optimizer.register_step_post_hook(live)


def shades() -> list[Example]:
    return [ask(str(n), "What is shown?", "red", Image.new("RGB", (32, 32), (20 * n, 40, 90))) for n in range(8)]


def test_sigterm_saves_after_the_update_under_way_and_the_next_try_goes_on_from_it(tmp_path: Path) -> None:
    ledger, diary = Ledger(str(tmp_path / "store")), tmp_path / "diary"
    skill = Skill("shades", 1, load=shades, benchmark=Benchmark("shades", 1, "exact", load=list))
    settings = Training(learning_rate=1e-3, global_batch_size=4, max_steps=6, precision="fp32")
    base = Pretrained(get_model("tiny-onevision"))
    step = Finetune(base, get_recipe("sa_proj"), ToldAtThree(diary=str(diary)), skill, settings, seed=0)
    before = signal.getsignal(signal.SIGTERM)

    with pytest.raises(PreemptedError, match="saved after update 3"):
        finetune(step, ledger, TrainingPlacement())
    assert signal.getsignal(signal.SIGTERM) == before
    assert ledger.find(step) is None

    record = finetune(step, ledger, TrainingPlacement())
    assert record["updates"] == 6
    assert len(diary.read_text().splitlines()) == 6, "no update was made twice"
    assert [row["update"] for row in ledger.read_lines(step.path, "curve.jsonl")] == [1, 2, 3, 4, 5, 6]
    assert not (tmp_path / "store" / "runs" / step.key).exists()
