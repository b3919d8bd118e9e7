"""The helpers of the GPU tests, and as much of what those do as a CPU can."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from same_stage import apart, here, learnt, losses, small

from lmmcl.config.cluster import TrainingPlacement


def test_stages_that_differ_are_told_apart(tmp_path: Path) -> None:
    step = small()
    _, one = learnt(step, tmp_path / "one", here())
    _, cut = learnt(step, tmp_path / "cut", TrainingPlacement(micro_batch_size=1, gradient_checkpointing=True))
    assert losses(step, one) == pytest.approx(losses(step, cut), rel=1e-3)
    assert apart(step, one, cut) < 0.15
    assert apart(step, one, one) == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="none are visible"):
        learnt(small(), tmp_path, TrainingPlacement(gpus_per_worker=1))
