"""Stages for tests of devices: the same one trained in two ways, and how far apart what they learnt is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from stage_parts import difference, stage, weights

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.ledger import Ledger, Record
from lmmcl.steps import Finetune
from lmmcl.training.finetune import finetune

TESTS = Path(__file__).parents[1]


def here(**more: Any) -> TrainingPlacement:
    """One GPU where there is one, else the CPU."""
    return TrainingPlacement.model_validate({"gpus_per_worker": int(torch.cuda.is_available()), **more})


def learnt(step: Finetune, folder: Path, placement: TrainingPlacement) -> tuple[Record, Ledger]:
    ledger = Ledger(str(folder))
    return finetune(step, ledger, placement), ledger


def apart(step: Finetune, one: Ledger, other: Ledger) -> float:
    """The largest difference of a weight, as a part of the longest way that any has gone from the pre-trained model."""
    first, second, start = weights(step, one), weights(step, other), weights(step.parent, one)
    return difference(first, second) / difference(first, start)


def losses(step: Finetune, ledger: Ledger) -> list[float]:
    return [row["loss"] for row in ledger.read_lines(step.path, "curve.jsonl")]


def small(**more: Any) -> Finetune:
    """Four updates in fp32, unless said otherwise."""
    return stage(**more)


@contextmanager
def ray_with(gpus: int, folder: Path) -> Iterator[None]:
    """A cluster of two CPUs and these GPUs, whose workers can import what tests define."""
    import ray

    paths = os.pathsep.join(str(path) for path in (TESTS.parent, TESTS, TESTS / "gpu"))
    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=gpus,
        include_dashboard=False,
        runtime_env={"env_vars": {"PYTHONPATH": paths}},
        _temp_dir=str(folder),
    )
    try:
        yield
    finally:
        ray.shutdown()
