"""`micro_batch_size: auto` finds what the memory holds, and nothing but speed tells that it was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from stage_parts import difference, stage, weights

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.ledger import Ledger
from lmmcl.methods import get_mitigation
from lmmcl.training.distributed.auto_batch import is_out_of_memory, sizes
from lmmcl.training.distributed.batches import cut_batches
from lmmcl.training.finetune import finetune
from lmmcl.training.stage.trainer import StageTrainer
from lmmcl.training.stage_errors import StageError

AUTO = TrainingPlacement(micro_batch_size="auto")


@pytest.fixture
def memory_for(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that makes a forward pass of more than a number of examples run out of memory; returns the sizes that were tried."""
    plain = StageTrainer.compute_loss

    def limit(examples: int, error: Exception | None = None) -> list[int]:
        tried: list[int] = []

        def compute_loss(self: StageTrainer, model: Any, inputs: dict[str, Any], **more: Any) -> Any:
            tried.append(len(inputs["labels"]))
            if tried[-1] > examples:
                raise error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
            return plain(self, model, inputs, **more)

        monkeypatch.setattr(StageTrainer, "compute_loss", compute_loss)
        return tried

    return limit


def test_sizes_halve_and_always_divide_a_workers_share() -> None:
    assert list(sizes(16)) == [16, 8, 4, 2, 1]
    assert list(sizes(12)) == [12, 6, 3, 1]
    assert list(sizes(7)) == [7, 1]
    assert list(sizes(1)) == [1]


def test_the_batch_is_whole_until_it_was_tried() -> None:
    training = stage(global_batch_size=16).training
    assert cut_batches(training, TrainingPlacement(workers=2, micro_batch_size="auto")).micro == 8


def test_out_of_memory_is_known_by_class_and_by_word() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("no room"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("CUDA out of memory"))


@pytest.mark.parametrize("mitigation", [None, {"lwf": {"weight": 1.0, "temperature": 2.0}}], ids=["plain", "lwf"])
def test_a_stage_takes_what_fits_and_learns_what_it_would_have_learnt(
    mitigation: Any, memory_for: Any, tmp_path: Path
) -> None:
    step = stage(get_mitigation(mitigation) if mitigation else None, global_batch_size=4)
    auto, told = Ledger(str(tmp_path / "auto")), Ledger(str(tmp_path / "told"))
    finetune(step, told, TrainingPlacement(micro_batch_size=2))
    tried = memory_for(2)
    record = finetune(step, auto, AUTO)
    assert tried[:2] == [4, 2], "halved once"
    assert set(tried[2:]) == {2}
    assert len(tried) == 2 + step.training.max_steps * 2
    assert (record["strategy"]["micro_batch_size"], record["strategy"]["accumulation"]) == (2, 2)
    assert difference(weights(step, auto), weights(step, told)) == 0, "a trial leaves nothing behind"


def test_what_fits_whole_is_left_whole(memory_for: Any, tmp_path: Path) -> None:
    memory_for(4)
    assert finetune(stage(global_batch_size=4), Ledger(str(tmp_path)), AUTO)["strategy"]["micro_batch_size"] == 4


def test_one_example_too_large_is_told_with_a_remedy(memory_for: Any, tmp_path: Path) -> None:
    memory_for(0)
    with pytest.raises(StageError, match=r"one example does not fit.*gradient_checkpointing"):
        finetune(stage(), Ledger(str(tmp_path)), AUTO)


def test_another_error_is_not_taken_for_a_lack_of_memory(memory_for: Any, tmp_path: Path) -> None:
    tried = memory_for(0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        finetune(stage(), Ledger(str(tmp_path)), AUTO)
    assert len(tried) == 1
