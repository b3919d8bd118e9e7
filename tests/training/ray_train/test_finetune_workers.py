"""The same stage in worker groups of Ray Train: equal losses and weights, errors that reach the user."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from group_parts import TOLERANCE, difference, losses, stage, two_cpus

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.methods.mitigation import TrainingMitigation
from lmmcl.tasks.examples import Example, ask
from lmmcl.training.finetune import finetune

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with two_cpus(tmp_path_factory.mktemp("ray")):
        yield


def broken(tries: str = "") -> list[Example]:
    if tries:
        with Path(tries).open("a") as diary:
            diary.write("try\n")
    return [ask("row-5", "What is shown?", "red", Path("/nowhere/to/be/found.png"))]


class Tight(TrainingMitigation):
    """Lets the second worker run out of memory with more than one example."""

    name = "tight"
    version = 1

    def batch(self, memory: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if os.environ.get("RANK") == "1" and len(batch["labels"]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return batch


def test_two_workers_compute_what_one_process_does(tmp_path: Path) -> None:
    alone, shared = Ledger(str(tmp_path / "alone")), Ledger(str(tmp_path / "shared"))
    finetune(stage(), alone, TrainingPlacement())
    record = finetune(stage(), shared, TrainingPlacement(workers=2, micro_batch_size=1))
    expected = {"name": "ddp", "workers": 2, "backend": "gloo", "device": "cpu"}
    assert expected.items() <= record["strategy"].items()
    assert losses(stage(), shared) == pytest.approx(losses(stage(), alone), rel=1e-3)
    assert difference(stage(), alone, shared) < TOLERANCE
    assert [row["update"] for row in shared.read_lines(stage().path, "curve.jsonl")] == [1, 2, 3, 4, 5, 6]
    assert not (tmp_path / "shared" / "runs" / stage().key).exists()


def test_workers_take_the_batch_that_fits_the_smallest_of_them(tmp_path: Path) -> None:
    auto, told = Ledger(str(tmp_path / "auto")), Ledger(str(tmp_path / "told"))
    step = stage(mitigation=Tight())
    record = finetune(step, auto, TrainingPlacement(workers=2, micro_batch_size="auto", max_failures=0))
    assert (record["strategy"]["micro_batch_size"], record["strategy"]["accumulation"]) == (1, 2)
    finetune(step, told, TrainingPlacement(micro_batch_size=1))
    assert difference(step, auto, told) < TOLERANCE


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
    assert difference(stage(), here, there) < TOLERANCE
