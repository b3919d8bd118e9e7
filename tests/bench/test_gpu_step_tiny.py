"""The code of the GPU benchmark runs, and its count of operations is right, where there is no GPU."""

from __future__ import annotations

import gpu_step
import pytest
from sized_qwen import meta, sized

from lmmcl.models import get_model

TINY = gpu_step.Setting("tiny", updates=gpu_step.WARM_UP + 3, batch=4, micro=2, side=32, checkpointing=False)
BIG = gpu_step.Setting("3b", updates=12, batch=16, micro=2, side=224, checkpointing=True)


@pytest.mark.parametrize("recipe", ["sa_proj", "lora"])
def test_both_ways_train_and_are_timed(recipe: str) -> None:
    results = gpu_step.measure(TINY, [recipe])
    assert [row.way for row in results] == ["lmmcl", "plain Trainer"]
    assert all(row.tokens_per_second > 0 for row in results)
    assert recipe in gpu_step.table(results)


@pytest.mark.parametrize("size", ["3b", "7b"])
def test_a_big_model_has_the_size_of_the_real_one(size: str) -> None:
    lmm = sized(size)
    mine = sum(parameter.numel() for parameter in meta(lmm).parameters())
    assert mine == pytest.approx(sum(get_model(lmm.real_name).role_counts().values()), rel=0.01)
    assert sum(lmm.role_counts().values()) == mine


def test_tokens_are_those_of_the_rows() -> None:
    tokens = gpu_step.tokens_of(BIG)
    assert tokens.patches == 16 * (224 // 4) ** 2
    assert tokens.total > tokens.patches / 4 > tokens.answers > 0
    assert len(set(tokens.lengths)) == 1
    mixed = gpu_step.tokens_of(gpu_step.Setting("3b", 12, 16, 2, 224, True, mixed=True))
    assert max(mixed.lengths) >= max(tokens.lengths) > 10 * min(mixed.lengths)


def test_more_that_trains_needs_more_operations() -> None:
    counts = [gpu_step.update_flops(BIG, recipe) for recipe in gpu_step.RECIPES]
    assert counts == sorted(counts)
    tokens = gpu_step.tokens_of(BIG).total
    assert 4 * 2.7e9 * tokens < counts[0] < counts[2] < 8 * 3.8e9 * tokens, (
        "between 4 and 8 operations a parameter and token"
    )
    lora = gpu_step.update_flops(BIG, "lora")
    adapters = 256 * 36 * 3 * (2048 + 11008)
    frozen = counts[0] - 2 * tokens * 36 * (2 * 2048 * 2048 + 2 * 2048 * 256 + 2048 + 2 * 256)
    assert lora - frozen == 6 * adapters * tokens
