"""WiSE-FT is a straight line between two models, and ends where they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lmmcl.errors import UserError
from lmmcl.methods import get_mitigation
from lmmcl.methods.merging.wise_ft import wise_ft


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_its_ends_are_the_two_models_to_the_bit(dtype: torch.dtype) -> None:
    anchor, tuned = torch.tensor([-0.0, 1e-8, 3.3]).to(dtype), torch.tensor([0.0, -1.1, 1e8]).to(dtype)
    for alpha, end in ((0.0, anchor), (1.0, tuned)):
        merged = wise_ft(anchor, tuned, alpha)
        assert torch.equal(merged, end)
        assert torch.equal(merged.signbit(), end.signbit())


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9])
def test_between_them_it_is_the_weighted_mean(alpha: float) -> None:
    random = np.random.default_rng(0)
    anchor, tuned = random.normal(size=(2, 5, 7)).astype(np.float32)
    merged = wise_ft(torch.from_numpy(anchor), torch.from_numpy(tuned), alpha)
    np.testing.assert_allclose(merged.numpy(), (1 - alpha) * anchor + alpha * tuned, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "settings", [{"alpha": -0.1}, {"alpha": 1.1}, {"alpha": float("nan")}, {"continues_from": "base"}]
)
def test_settings_that_cannot_be_are_refused(settings: dict) -> None:
    with pytest.raises(UserError, match=f"wise_ft.{next(iter(settings))}"):
        get_mitigation({"wise_ft": settings})
