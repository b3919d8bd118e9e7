"""Peak memory: a stage's own, not what an earlier stage of the same process needed."""

import sys

import pytest
import torch

from lmmcl.training.stage.memory import peak_bytes, start_peak

CPU = torch.device("cpu")
LARGE = 256 * 2**20


@pytest.mark.skipif(sys.platform != "linux" or torch.cuda.is_available(), reason="resident memory of a Linux process")
def test_a_small_stage_after_a_large_one_is_not_charged_for_it():
    start_peak()
    before = peak_bytes(CPU)
    held = torch.ones(LARGE, dtype=torch.uint8)
    large = peak_bytes(CPU)
    del held
    start_peak()

    assert large - before >= 0.9 * LARGE
    assert peak_bytes(CPU) - before < 0.5 * LARGE
