"""The code of the GPU benchmark runs, and its count of operations is right, where there is no GPU."""

from __future__ import annotations

import gpu_step
import pytest
import torch

TINY = gpu_step.Setting(False, updates=gpu_step.WARM_UP + 3, batch=4, micro=2, side=32, checkpointing=False)
BIG = gpu_step.Setting(True, updates=12, batch=16, micro=2, side=224, checkpointing=True)


def test_both_ways_train_and_are_timed() -> None:
    found = gpu_step.measure(TINY, ["sa_proj"])
    assert [row.way for row in found] == ["lmmcl", "plain Trainer"]
    assert all(row.tokens_per_second > 0 for row in found)
    assert "sa_proj" in gpu_step.table(found)


def test_the_big_model_has_the_size_of_the_real_one() -> None:
    from transformers import AutoConfig, AutoModelForImageTextToText

    from lmmcl.models import get_model

    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(**BIG.model().values()))
    mine = sum(parameter.numel() for parameter in model.parameters())
    assert mine == pytest.approx(sum(get_model("qwen2.5-vl-3b").role_counts().values()), rel=0.01)
    tokens, answers, patches = gpu_step.tokens_of(BIG)
    assert patches == 16 * (224 // 4) ** 2
    assert tokens > patches / 4 > answers > 0


def test_more_that_trains_needs_more_operations() -> None:
    counts = [gpu_step.update_flops(BIG, recipe) for recipe in gpu_step.RECIPES]
    assert counts == sorted(counts)
    tokens, _, _ = gpu_step.tokens_of(BIG)
    assert 4 * 2.7e9 * tokens < counts[0] < counts[2] < 8 * 3.8e9 * tokens, (
        "between 4 and 8 operations a parameter and token"
    )
