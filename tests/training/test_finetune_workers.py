"""The same stage in worker groups of Ray Train: equal weights, resume after a lost worker, errors that reach the user."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.methods.mitigation import TrainingMitigation
from lmmcl.methods.recipes import get_recipe
from lmmcl.models import get_model
from lmmcl.spec.cluster import TrainingPlacement
from lmmcl.spec.settings import Training
from lmmcl.spec.steps import Finetune, Pretrained
from lmmcl.tasks.base import Benchmark, Example, Skill, ask
from lmmcl.training.finetune import finetune
from lmmcl.weights.checkpoint import load_checkpoint, named_tensors

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

BASE = Pretrained(get_model("tiny-onevision"))


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    import ray

    environment = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parent)])}
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        runtime_env={"env_vars": environment},
        _temp_dir=str(tmp_path_factory.mktemp("ray")),
    )
    yield
    ray.shutdown()


def shades() -> list[Example]:
    """Answers of different lengths, so that a mean per worker would differ from the mean over the global batch."""
    words = ["red", "red circle", "small red circle left of blue square"]
    return [
        ask(str(n), "What is shown?", words[n % 3], Image.new("RGB", (32, 32), (20 * n, 40, 90))) for n in range(12)
    ]


def broken(tries: str = "") -> list[Example]:
    if tries:
        with Path(tries).open("a") as diary:
            diary.write("try\n")
    return [ask("row-5", "What is shown?", "red", Path("/nowhere/to/be/found.png"))]


class DieOnce(TrainingMitigation):
    """Ends the process of a worker, without a word, at the fifth update; `diary` gets a line for each update."""

    name = "die_once"
    version = 1
    diary: str

    def optimizer(self, memory: Any, model: Any, optimizer: torch.optim.Optimizer) -> None:
        def live(*_: Any) -> None:
            with Path(self.diary).open("a") as diary:
                diary.write("update\n")
            if len(Path(self.diary).read_text().splitlines()) == 5:
                time.sleep(5)  # what was reported within two seconds of a death may be lost
                os._exit(1)

        optimizer.register_step_post_hook(live)


class Tight(TrainingMitigation):
    """Lets the second worker run out of memory with more than one example."""

    name = "tight"
    version = 1

    def batch(self, memory: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if os.environ.get("RANK") == "1" and len(batch["labels"]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return batch


def stage(load: Any = shades, mitigation: TrainingMitigation | None = None, **more: Any) -> Finetune:
    skill = Skill("shades", 1, load=load, benchmark=Benchmark("shades", 1, "exact", load=list))
    settings = {"learning_rate": 1e-3, "global_batch_size": 4, "max_steps": 6, "precision": "fp32", **more}
    return Finetune(BASE, get_recipe("full"), mitigation, skill, Training(**settings), seed=0)


def difference(step: Finetune, one: Ledger, other: Ledger) -> float:
    first, second = (named_tensors(load_checkpoint(step, ledger, precision="fp32")) for ledger in (one, other))
    return max(float((first[name] - second[name]).detach().abs().max()) for name in first)


def test_two_workers_compute_what_one_process_does(tmp_path: Path) -> None:
    alone, shared = Ledger(str(tmp_path / "alone")), Ledger(str(tmp_path / "shared"))
    finetune(stage(), alone, TrainingPlacement())
    record = finetune(stage(), shared, TrainingPlacement(workers=2, micro_batch_size=1))
    assert record["strategy"] == {"name": "ddp", "workers": 2, "backend": "gloo", "device": "cpu"}
    assert difference(stage(), alone, shared) < 5e-4, "Adam scales rounding up where gradients are 0"
    assert [row["update"] for row in shared.read_lines(stage().path, "curve.jsonl")] == [1, 2, 3, 4, 5, 6]
    assert not (tmp_path / "shared" / "runs" / stage().key).exists()


def test_workers_take_the_batch_that_fits_the_smallest_of_them(tmp_path: Path) -> None:
    auto, told = Ledger(str(tmp_path / "auto")), Ledger(str(tmp_path / "told"))
    step = stage(mitigation=Tight())
    record = finetune(step, auto, TrainingPlacement(workers=2, micro_batch_size="auto", max_failures=0))
    assert (record["strategy"]["micro_batch_size"], record["strategy"]["accumulation"]) == (1, 2)
    finetune(step, told, TrainingPlacement(micro_batch_size=1))
    assert difference(step, auto, told) < 5e-4


def test_a_group_that_loses_its_worker_goes_on_from_the_last_checkpoint(tmp_path: Path) -> None:
    whole, torn = Ledger(str(tmp_path / "whole")), Ledger(str(tmp_path / "torn"))
    diary = tmp_path / "diary"
    step = stage(mitigation=DieOnce(diary=str(diary)), max_steps=8)
    record = finetune(step, torn, TrainingPlacement(workers=1, save_every=3, max_failures=1))
    assert len(diary.read_text().splitlines()) == 5 + 5, "updates 1 to 5, then 4 to 8"
    assert record["updates"] == 8
    finetune(step, whole, TrainingPlacement())
    assert difference(step, whole, torn) < 5e-4


def test_a_broken_row_in_a_worker_is_told_like_one_at_home_and_not_tried_again(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    step = stage(load=partial(broken, str(tmp_path / "tries")))
    with pytest.raises(UserError, match="skill shades: row 'row-5'"):
        finetune(step, ledger, TrainingPlacement(workers=1, max_failures=3))
    assert ledger.find(step) is None
    assert (tmp_path / "tries").read_text() == "try\n"


def test_local_mode_works_inside_a_ray_task(tmp_path: Path) -> None:
    import ray

    here, there = Ledger(str(tmp_path / "here")), Ledger(str(tmp_path / "there"))
    finetune(stage(), here, TrainingPlacement())
    task = ray.remote(num_cpus=1)(lambda: finetune(stage(), there, TrainingPlacement())["strategy"])
    assert ray.get(task.remote())["name"] == "single"
    assert difference(stage(), here, there) < 5e-4
