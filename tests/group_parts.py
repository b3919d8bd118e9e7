"""Stages for tests of worker groups: what their workers can import, a cluster for them, and what came out."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from lmmcl.config.settings import Training
from lmmcl.ledger import Ledger
from lmmcl.methods.mitigation import TrainingMitigation
from lmmcl.methods.recipes.recipe import get_recipe
from lmmcl.models import get_model
from lmmcl.steps import Checkpoint, Finetune, Pretrained
from lmmcl.tasks.examples import Example, ask
from lmmcl.tasks.skills import Benchmark, Skill
from lmmcl.weights.checkpoint import load_checkpoint, named_tensors

BASE = Pretrained(get_model("tiny-onevision"))
TOLERANCE = 5e-4
"""Of weights after six updates of 1e-3 in fp32: the order of sums differs."""
RARE = 10_000
"""One weight in this many may differ by more: where gradients are 0, Adam scales rounding up to whole updates on some processors."""


@contextmanager
def two_cpus(folder: Path) -> Iterator[None]:
    """A cluster of two logical CPUs, whose workers can import what these tests define."""
    import ray

    tests = Path(__file__).parent
    paths = [str(tests.parent), str(tests), *(str(tests / "training" / room) for room in ("ray_train", "distributed"))]
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}},
        _temp_dir=str(folder),
    )
    try:
        yield
    finally:
        ray.shutdown()


def shades() -> list[Example]:
    """Answers of different lengths, so that a mean per worker would differ from the mean over the global batch."""
    words = ["red", "red circle", "small red circle left of blue square"]
    return [
        ask(str(n), "What is shown?", words[n % 3], Image.new("RGB", (32, 32), (20 * n, 40, 90))) for n in range(12)
    ]


class DieOnce(TrainingMitigation):
    """Ends the process of the first worker, silently, at an update (0: never); `diary` gets a line for each update."""

    name = "die_once"
    version = 1
    diary: str
    at: int = 5

    def optimizer(self, memory: Any, model: Any, optimizer: torch.optim.Optimizer) -> None:
        optimizer.register_step_post_hook(lambda *_: self.live())

    def live(self) -> None:
        if os.environ.get("RANK", "0") != "0":
            return
        with Path(self.diary).open("a") as diary:
            diary.write("update\n")
        if updates(self.diary) == self.at:
            time.sleep(5)  # what was reported within two seconds of a death may be lost
            os._exit(1)


class FailOnce(TrainingMitigation):
    """Raises an error that is not tried again after the first five updates that were made; `diary` gets a line for each update."""

    name = "fail_once"
    version = 1
    diary: str

    def optimizer(self, memory: Any, model: Any, optimizer: torch.optim.Optimizer) -> None:
        optimizer.register_step_post_hook(lambda *_: self.live())

    def live(self) -> None:
        with Path(self.diary).open("a") as diary:
            diary.write("update\n")
        if updates(self.diary) == 5:
            raise ArithmeticError("this time only")


class DieOnceDivided(TrainingMitigation):
    """The same where the optimizer is divided, which no mitigation may look at: counts batches, one an update and one ahead."""

    name = "die_once_divided"
    version = 1
    diary: str

    def batch(self, memory: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        DieOnce(diary=self.diary).live()
        return batch


def updates(diary: str | Path) -> int:
    return len(Path(diary).read_text().splitlines())


def stage(
    load: Any = shades,
    mitigation: TrainingMitigation | None = None,
    recipe: Any = "full",
    parent: Checkpoint = BASE,
    **more: Any,
) -> Finetune:
    """Six updates of four examples in fp32, unless `more` says otherwise."""
    skill = Skill("shades", 1, load=load, benchmark=Benchmark("shades", 1, "exact", load=list))
    settings = {"learning_rate": 1e-3, "global_batch_size": 4, "max_steps": 6, "precision": "fp32", **more}
    return Finetune(parent, get_recipe(recipe), mitigation, skill, Training(**settings), seed=0)


def difference(step: Finetune, one: Ledger, other: Ledger) -> float:
    """The largest, but for rare ones, of a weight between two stores that hold `step`."""
    return apart(step, one, step, other)


def apart(step: Finetune, ledger: Ledger, other_step: Finetune, other: Ledger) -> float:
    """The same of two steps."""
    first = named_tensors(load_checkpoint(step, ledger, precision="fp32"))
    second = named_tensors(load_checkpoint(other_step, other, precision="fp32"))
    moved = torch.cat([(first[name] - second[name]).detach().abs().flatten() for name in first])
    print(f"apart: most {moved.max():.2e}, typical {moved.mean():.2e}")
    return float(moved.sort().values[-1 - len(moved) // RARE])


def losses(step: Finetune, ledger: Ledger) -> list[float]:
    return [row["loss"] for row in ledger.read_lines(step.path, "curve.jsonl")]
