"""An evaluation that is killed is resumed after the questions that it had answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lmmcl.config.settings import Evaluation
from lmmcl.evaluation import generate, partial_answers
from lmmcl.evaluation.engines.transformers import Transformers
from lmmcl.evaluation.evaluate import record_scores
from lmmcl.evaluation.judging.local_judge import LocalJudges
from lmmcl.evaluation.partial_answers import NAME
from lmmcl.ledger import Ledger
from lmmcl.models import get_model
from lmmcl.steps import Evaluate, Pretrained
from lmmcl.tasks import get_benchmark

TINY = get_model("tiny-onevision")
STEP = Evaluate(Pretrained(TINY), get_benchmark("colour"), Evaluation(limit=6, precision="fp32"))


class Killed(Exception):
    """In place of SIGKILL."""


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(partial_answers, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(generate, "BATCHES_PER_WINDOW", 1)
    model, processor, window = TINY.load_model(), TINY.load_processor(), generate.answer_window

    def run(ledger: Ledger, lives: int | None = None) -> tuple[Any, int]:
        asked = 0

        def counted(*arguments: Any) -> Any:
            nonlocal asked
            if lives is not None and asked == lives:
                raise Killed
            asked += 1
            return window(*arguments)

        monkeypatch.setattr(generate, "answer_window", counted)
        engine = Transformers(model, processor, 2)
        with LocalJudges("cpu") as judges:
            return record_scores(STEP, ledger, engine, judges=judges, on_answer=lambda answered, questions: None), asked

    return run


def test_what_was_answered_before_a_kill_is_not_asked_again(tmp_path: Path, ask: Any) -> None:
    whole, killed = Ledger(str(tmp_path / "whole")), Ledger(str(tmp_path / "killed"))
    expected, windows = ask(whole)
    assert windows == 3
    with pytest.raises(Killed):
        ask(killed, 2)
    record, asked = ask(killed)
    assert asked == 1
    assert record["sample_scores"] == expected["sample_scores"]
    assert killed.read_lines(STEP.path, "samples.jsonl") == whole.read_lines(STEP.path, "samples.jsonl")
    assert not (tmp_path / "killed" / "runs" / STEP.key).exists()


def test_damaged_answers_are_asked_again(tmp_path: Path, ask: Any, caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger(str(tmp_path))
    with pytest.raises(Killed):
        ask(ledger, 2)
    file = tmp_path / "runs" / STEP.key / f"{NAME}.json"
    content = file.read_bytes()
    file.write_bytes(content[:20] + bytes([content[20] ^ 1]) + content[21:])
    assert ask(ledger)[1] == 3
    assert f"{file} is skipped" in caplog.text
