"""Rows of like length meet in a micro-batch; what an update is learnt from, and to what it leads, stays the same."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from stage_parts import difference, made_skill, parts, stage, weights

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.ledger import Ledger, Record
from lmmcl.models import get_model
from lmmcl.models.processing.encode import encode
from lmmcl.models.processing.padding import IGNORED
from lmmcl.steps import Finetune, Pretrained
from lmmcl.tasks.examples import Example, ask
from lmmcl.training.efficiency.length_order import LengthOrder
from lmmcl.training.efficiency.padding_share import PaddingCount
from lmmcl.training.efficiency.row_lengths import RowLengths
from lmmcl.training.finetune import finetune

NEAR = 0.15
"""Of the way that weights went: Adam's first updates are ± the learning rate, and rounding decides the sign of tiny gradients."""
ROWS = [5, 2, 7, 0, 1, 3, 6, 4]


def mixed(count: int = 32) -> list[Example]:
    """Answers of 1 to some 60 words; every other row has a picture."""
    return [
        ask(
            str(n),
            "What is shown?",
            " ".join(["red square"] * (1 + 7 * n % 31)),
            Image.new("RGB", (32, 32), (7 * n, 90, 9)) if n % 2 else None,
        )
        for n in range(count)
    ]


def mixed_stage(**more: Any) -> Finetune:
    return stage(
        skill=made_skill("mixed_lengths", mixed()), recipe="llm", **{"global_batch_size": 16, "max_steps": 2, **more}
    )


def test_each_update_has_its_own_rows_the_longest_first() -> None:
    order = LengthOrder(ROWS, 4, lambda row: row)
    read = [order[position] for position in range(8)]
    assert read == [7, 5, 2, 0, 6, 4, 3, 1]
    assert sorted(read[:4]) == sorted(ROWS[:4])


def test_rows_of_one_length_stay_in_the_order_of_training() -> None:
    assert [LengthOrder(ROWS, 4, lambda _: 3)[position] for position in range(8)] == ROWS


def test_a_resumed_stage_reads_the_same_rows_as_one_that_was_not_killed() -> None:
    whole = LengthOrder(list(range(400)), 4, lambda row: row % 7)
    before = [whole[position] for position in range(400)]
    resumed = LengthOrder(list(range(400)), 4, lambda row: row % 7)
    assert [resumed[position] for position in range(391, 400)] == before[391:]
    assert [whole[position] for position in range(8)] == before[:8], "of an update that was dropped meanwhile"


def test_rows_are_estimated_in_the_order_of_their_real_lengths() -> None:
    processor, examples = get_model("tiny-qwen").load_processor(), mixed()
    real = [len(encode(processor, example, with_answer=True)["input_ids"]) for example in examples]
    lengths = RowLengths(processor, examples)
    order = sorted(range(len(examples)), key=lengths)
    sorted_real = [real[row] for row in order]
    assert max(before - after for before, after in pairwise(sorted_real)) <= 8
    assert RowLengths(processor, examples, max_tokens=9)(31) == 9


def test_a_row_that_cannot_be_read_is_left_to_its_encoding(tmp_path: Path) -> None:
    broken = ask("broken", "What?", "red", tmp_path / "nowhere.png")
    assert RowLengths(get_model("tiny-qwen").load_processor(), [broken])(0) == 0


def trained(step: Finetune, folder: Path, **placement: Any) -> tuple[Record, Ledger]:
    ledger = Ledger(str(folder))
    return finetune(step, ledger, TrainingPlacement(**placement)), ledger


def test_padding_is_under_a_tenth_and_what_is_learnt_is_what_one_batch_teaches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = mixed_stage(global_batch_size=32, parent=Pretrained(get_model("tiny-qwen")))
    record, cut = trained(step, tmp_path / "cut", micro_batch_size=2)
    whole_record, whole = trained(step, tmp_path / "whole")
    moved = difference(weights(step, whole), weights(step.parent, whole))
    assert difference(weights(step, cut), weights(step, whole)) < NEAR * moved
    curve, whole_curve = (store.read_lines(step.path, "curve.jsonl") for store in (cut, whole))
    assert [row["loss"] for row in curve] == pytest.approx([row["loss"] for row in whole_curve], rel=1e-4)
    assert record["padding_share"] <= 0.1 < 0.25 < whole_record["padding_share"]
    monkeypatch.setattr(RowLengths, "__call__", lambda self, row: 0)
    unsorted, _ = trained(step, tmp_path / "unsorted", micro_batch_size=2)
    assert unsorted["padding_share"] > 2 * record["padding_share"]


def test_gradients_of_an_update_are_those_of_one_batch(tmp_path: Path) -> None:
    gradients = []
    for micro in (16, 2):
        trainer = parts(mixed_stage(), tmp_path, micro_batch_size=micro).trainer
        data: Any = trainer.train_dataset
        batches = [
            trainer.prepare_batch(trainer.data_collator([data[at] for at in range(start, start + micro)]))
            for start in range(0, 16, micro)
        ]
        tokens = torch.stack([(batch["labels"] != IGNORED).sum() for batch in batches]).sum()
        for batch in batches:
            trainer.compute_loss(trainer.taught, batch, num_items_in_batch=tokens).backward()
        gradients.append({name: p.grad for name, p in trainer.taught.named_parameters() if p.grad is not None})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_a_killed_stage_of_sorted_batches_is_resumed_to_the_same_weights(tmp_path: Path) -> None:
    step, placement = mixed_stage(max_steps=4), TrainingPlacement(micro_batch_size=4, save_every=2)
    whole, killed = Ledger(str(tmp_path / "whole")), Ledger(str(tmp_path / "killed"))
    finetune(step, whole, placement)

    def die(shown: dict[str, Any]) -> None:
        if shown["update"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(step, killed, placement, progress=die)
    record = finetune(step, killed, placement)
    assert difference(weights(step, whole), weights(step, killed)) == 0
    assert 0 < record["padding_share"] < 0.2, "of what was trained since"


def test_one_batch_an_update_is_read_in_the_order_of_training(tmp_path: Path) -> None:
    data: Any = parts(mixed_stage(), tmp_path).trainer.train_dataset
    assert data.order is None, "no padding would be saved, and sums would be made in another order"
    cut: Any = parts(mixed_stage(), tmp_path, micro_batch_size=4).trainer.train_dataset
    assert sorted(cut.order[position] for position in range(16)) == sorted(data.rows[:16])


def test_padding_is_counted_over_all_workers() -> None:
    count = PaddingCount()
    count.add({"input_ids": torch.zeros(2, 5), "attention_mask": torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])})
    assert count.share(lambda counts: counts, torch.device("cpu")) == pytest.approx(0.2)
    count.add({"input_ids": torch.zeros(1, 10)})
    assert count.share(lambda counts: 2 * counts, torch.device("cpu")) == pytest.approx(0.1)
    assert PaddingCount().share(lambda counts: counts, torch.device("cpu")) == 0
