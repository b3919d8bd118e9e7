"""What a mitigation counts and moves while a stage trains: written into its checkpoints, and read when it is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

FILE = "mitigation.safetensors"


def write_moving(trainer: Any, folder: Path) -> None:
    """Write it into a checkpoint's folder, where there is any. All workers call this; the first one writes."""
    mitigation, state = trainer.mitigation, trainer.mitigation_state
    tensors = {f"moving.{name}": value.cpu() for name, value in mitigation.moving(state).items()}
    tensors |= {f"counts.{name}": value for name, value in sum_counts(trainer).items()}
    if tensors and trainer.args.should_save:
        save_file({name: value.contiguous() for name, value in tensors.items()}, folder / FILE)


def read_moving(trainer: Any, folder: Path) -> None:
    """Set it to what `write_moving` wrote. Counts are sums over workers: the first one has them all, the others begin at 0."""
    mitigation, state = trainer.mitigation, trainer.mitigation_state
    moving, counts = mitigation.moving(state), mitigation.counts(state)
    if not (moving or counts):
        return
    kept = load_file(folder / FILE)
    first = trainer.is_world_process_zero()
    for name, value in moving.items():
        value.copy_(kept[f"moving.{name}"])
    for name, value in counts.items():
        value.copy_(kept[f"counts.{name}"] if first else torch.zeros_like(value))


def sum_counts(trainer: Any) -> Mapping[str, Tensor]:
    """The counts of all workers together; all of them call this."""
    counts = trainer.mitigation.counts(trainer.mitigation_state)
    if trainer.accelerator.num_processes == 1:
        return counts
    return {
        name: trainer.accelerator.reduce(value.clone().to(trainer.args.device), "sum").cpu()
        for name, value in counts.items()
    }


def settle_counts(trainer: Any) -> None:
    """Set the counts of every worker to their sum, once a stage has trained."""
    sums = sum_counts(trainer)
    for name, value in trainer.mitigation.counts(trainer.mitigation_state).items():
        value.copy_(sums[name])
