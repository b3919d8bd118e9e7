"""An input with more tokens than the model has positions is refused, with its place, in training and in evaluation."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from stage_parts import parts, stage

from lmmcl.errors import UserError
from lmmcl.evaluation.generate import answer
from lmmcl.models import get_model
from lmmcl.models.processing.position_limit import check_positions, position_limits
from lmmcl.tasks.examples import ask
from lmmcl.tasks.skills import Benchmark, Skill


def limits(**text: Any) -> dict[str, int]:
    qformer = text.pop("qformer", None)
    config = SimpleNamespace(get_text_config=lambda decoder: SimpleNamespace(**text), qformer_config=qformer)
    return position_limits(SimpleNamespace(config=config))


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"max_position_embeddings": 4096, "rope_parameters": {"rope_type": "default"}}, 4096),
        ({"max_position_embeddings": 4096, "rope_parameters": {"rope_type": "linear", "factor": 2.0}}, 8192),
        (
            {
                "max_position_embeddings": 32768,
                "rope_parameters": {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 32768},
            },
            131072,
        ),
        (
            {
                "max_position_embeddings": 8192,
                "rope_parameters": {"full": {"rope_type": "linear", "factor": 8}, "sliding": {"rope_type": "default"}},
            },
            65536,
        ),
    ],
)
def test_the_limit_is_how_far_the_positions_reach(text: dict[str, Any], limit: int) -> None:
    assert limits(**text) == {"input_ids": limit}


def test_a_model_without_positions_has_no_limit_and_a_q_former_has_its_own() -> None:
    assert limits() == {}
    assert limits(qformer=SimpleNamespace(max_position_embeddings=512)) == {"qformer_input_ids": 512}


def test_the_answer_counts_too() -> None:
    check_positions({"input_ids": torch.zeros(5)}, {"input_ids": 8}, answer_tokens=3)
    with pytest.raises(UserError, match=r"takes 5 tokens, and an answer up to 4; the model has 8 positions"):
        check_positions({"input_ids": torch.zeros(5)}, {"input_ids": 8}, answer_tokens=4)


LONG = "red " * 1100


def test_a_training_row_that_is_too_long_ends_the_stage_and_is_named(tmp_path: Path) -> None:
    rows = [ask("short", "what ?", "red"), ask("long", LONG, "red")]
    skill = Skill("lengths", 1, load=lambda: rows, benchmark=Benchmark("lengths", 1, "exact_match", load=list))
    data: Any = parts(stage(skill=skill), tmp_path).trainer.train_dataset
    data.encoded(0)
    with pytest.raises(UserError, match=r"skill lengths.*row 'long'.*the model has 1024 positions.*max_length"):
        data.encoded(1)


def test_a_question_that_is_too_long_is_named() -> None:
    tiny = get_model("tiny-onevision")
    benchmark = Benchmark("lengths", 1, "exact_match", load=lambda: [ask("long", LONG, "red")])
    with pytest.raises(UserError, match=r"benchmark lengths.*example long.*the model has 1024 positions"):
        answer(tiny.load_model(), tiny.load_processor(), benchmark, limit=None, batch_size=2)
