"""How a global batch is cut, in which order rows come, and what is kept of their encodings."""

from __future__ import annotations

import pytest
import torch

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.config.settings import Training
from lmmcl.errors import UserError
from lmmcl.training.distributed.batches import Batches, cut_batches
from lmmcl.training.stage.collate import EncodingCache, row_order


@pytest.mark.parametrize(
    ("workers", "micro", "cut"),
    [
        (0, None, Batches(1, 1, 16)),
        (1, 4, Batches(1, 4, 4)),
        (4, None, Batches(4, 1, 4)),
        (4, 2, Batches(4, 2, 2)),
        (4, 64, Batches(4, 1, 4)),
    ],
)
def test_workers_accumulation_and_micro_batch_make_up_the_global_batch(
    workers: int, micro: int | None, cut: Batches
) -> None:
    assert (
        cut_batches(Training(global_batch_size=16), TrainingPlacement(workers=workers, micro_batch_size=micro)) == cut
    )
    assert cut.workers * cut.accumulation * cut.micro == 16


def test_a_batch_that_cannot_be_shared_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(UserError, match=r"16 cannot be shared by 3 workers; .*: 1, 2, 4, 8, 16"):
        cut_batches(Training(global_batch_size=16), TrainingPlacement(workers=3))


def test_a_share_that_cannot_be_cut_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(UserError, match=r"8 examples a worker .* batches of 3; allowed: 1, 2, 4, 8"):
        cut_batches(Training(global_batch_size=16), TrainingPlacement(workers=2, micro_batch_size=3))


@pytest.mark.parametrize(
    ("settings", "updates"),
    [({"epochs": 1}, 7), ({"epochs": 2}, 13), ({"epochs": 0.5}, 4), ({"epochs": 3, "max_steps": 5}, 5)],
)
def test_updates_cover_the_epochs(settings: dict[str, float], updates: int) -> None:
    assert Training(global_batch_size=16, **settings).updates(100) == updates


def test_each_pass_has_every_row_once_in_another_order() -> None:
    rows = row_order(10, 25, seed=3)
    assert sorted(rows[:10]) == sorted(rows[10:20]) == list(range(10))
    assert rows[:10] != rows[10:20]
    assert len(rows) == 25


def test_the_order_follows_the_seed_alone_and_is_known() -> None:
    assert row_order(6, 6, seed=0) == row_order(6, 12, seed=0)[:6]
    assert row_order(6, 6, seed=0) != row_order(6, 6, seed=1)
    assert row_order(6, 6, seed=0) == [3, 2, 5, 4, 0, 1]


def encoded(numbers: int) -> dict[str, torch.Tensor]:
    return {"input_ids": torch.zeros(numbers, dtype=torch.uint8)}


def test_a_row_is_encoded_once() -> None:
    cache, made = EncodingCache(limit=100), []

    def make() -> dict[str, torch.Tensor]:
        made.append(1)
        return encoded(10)

    assert cache.get("birds", 0, make) is cache.get("birds", 0, make)
    assert len(made) == 1


def test_the_cache_drops_the_skill_taught_longest_ago_and_never_grows_over_its_limit() -> None:
    cache = EncodingCache(limit=100)
    for name in ("birds", "clocks", "words"):
        for row in range(4):
            cache.get(name, row, lambda: encoded(10))
            assert cache.bytes <= 100
    made: list[str] = []
    cache.get("words", 0, lambda: made.append("words") or encoded(10))
    cache.get("birds", 0, lambda: made.append("birds") or encoded(10))
    assert made == ["birds"]


def test_a_skill_larger_than_the_cache_is_kept_in_part() -> None:
    cache = EncodingCache(limit=35)
    for row in range(10):
        assert len(cache.get("birds", row, lambda: encoded(10))["input_ids"]) == 10
    assert cache.bytes == 30
