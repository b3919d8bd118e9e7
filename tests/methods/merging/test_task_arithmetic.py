"""Task arithmetic adds what each skill changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lmmcl.errors import UserError
from lmmcl.methods import get_mitigation
from lmmcl.methods.merging.task_arithmetic import task_arithmetic

RANDOM = np.random.default_rng(0)
ANCHOR, *TUNED = RANDOM.normal(size=(4, 6, 9)).astype(np.float32)


@pytest.mark.parametrize("skills", [1, 3])
@pytest.mark.parametrize("scale", [0.4, 1.0, 1.5])
def test_it_is_the_anchor_and_the_scaled_sum_of_task_vectors(skills: int, scale: float) -> None:
    merged = task_arithmetic(torch.from_numpy(ANCHOR), [torch.from_numpy(t) for t in TUNED[:skills]], scale)
    expected = ANCHOR + scale * sum(tuned - ANCHOR for tuned in TUNED[:skills])
    np.testing.assert_allclose(merged.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_one_skill_at_full_scale_is_its_fine_tune_to_the_bit() -> None:
    tuned = torch.from_numpy(TUNED[0])
    assert torch.equal(task_arithmetic(torch.from_numpy(ANCHOR), [tuned], 1.0), tuned)


@pytest.mark.parametrize("scale", [0, -1, float("inf"), float("nan"), "much"])
def test_a_scale_that_cannot_be_is_refused(scale: object) -> None:
    with pytest.raises(UserError, match=r"task_arithmetic\.scale"):
        get_mitigation({"task_arithmetic": {"scale": scale}})
