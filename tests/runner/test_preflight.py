"""What is found before anything runs: rows that a tokenizer cannot read, benchmarks that no answer can pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made import write_sweep
from models.test_control_tokens import Slow
from own_data import write_receipts

from lmmcl.config.sweep import load_sweep
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.models.tiny.tiny import TinyLMM
from lmmcl.runner.preflight import check_rows

SWEEP = """
name: preflight
orders: {main: [own]}
skills: {own: {train: train.json, test: test.json, metric: exact_match, max_new_tokens: TOKENS}}
benchmarks: {held_out: [colour]}
training: {learning_rate: 1.0e-3, max_steps: 1, global_batch_size: 2, precision: fp32}
grids: [{model: [tiny-onevision], recipe: [sa_proj], seed: [0]}]
"""


def steps_of(folder: Path, answer: str, tokens: int) -> Any:
    for name in ("train.json", "test.json"):
        path = write_receipts(folder, rows=4, name=name, seed=len(name))
        rows = json.loads(path.read_text())
        for row in rows:
            row["conversations"][-1]["value"] = answer
        path.write_text(json.dumps(rows))
    return load_sweep(write_sweep(folder, SWEEP.replace("TOKENS", str(tokens)))).steps.values()


def test_a_benchmark_that_no_answer_can_pass_is_refused_before_anything_runs(tmp_path: Path) -> None:
    steps = steps_of(tmp_path, "a red ring on a blue wall", 3)
    with pytest.raises(
        UserError, match=r"benchmark own: most questions cannot be answered correctly:\n- a perfect.* for 4 of 4"
    ):
        check_rows(steps, Ledger(str(tmp_path / "store")), print)
    assert not list((tmp_path / "store").rglob("record.json"))


def test_what_can_be_answered_is_passed_without_a_note(tmp_path: Path) -> None:
    notes: list[str] = []
    check_rows(steps_of(tmp_path, "red", 3), Ledger(str(tmp_path / "store")), notes.append)
    assert notes == []


def test_a_row_that_a_tokenizer_cannot_read_is_named_with_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = TinyLMM.load_processor

    def slow(model: TinyLMM) -> Any:
        processor: Any = load(model)
        processor.tokenizer = Slow(processor.tokenizer)
        return processor

    monkeypatch.setattr(TinyLMM, "load_processor", slow)
    steps = steps_of(tmp_path, "red <end>", 8)
    with pytest.raises(UserError) as told:
        check_rows(steps, Ledger(str(tmp_path / "store")), print)
    assert "skill own: example " in str(told.value)
    assert "turn 2 (assistant): spells '<end>', which the model's tokenizer cannot read as plain text" in str(
        told.value
    )
