"""Chat templates that open a thought: an answer is taught behind it, never inside, and is asked as it was taught."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml
from made import write_sweep
from models import small_families
from models.small_families import ALWAYS_THINKING, CHATML, THINKING, save
from models.word_pieces import word_pieces

from lmmcl.config.sweep import load_sweep
from lmmcl.errors import UserError
from lmmcl.evaluation.attainable import Speaker
from lmmcl.evaluation.encodings import processor_token
from lmmcl.models import get_model
from lmmcl.models.processing.encode import encode
from lmmcl.models.processing.padding import IGNORED
from lmmcl.models.processing.rendering import let_think, thinking
from lmmcl.tasks.examples import Example, Message, ask

ANSWER = "Yes"
CLOSED = "</think>\n\n"


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A processor with a template, thinking or not."""
    monkeypatch.setattr(small_families, "tokenizer", word_pieces("byte_level"))

    def processor(template: str, *, on: bool) -> Any:
        made = small_families.FAMILIES["qwen3_vl"]()[1]
        made.chat_template = template.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
        if on:
            let_think(made, "model made")
        return made

    return processor


def read(processor: Any, example: Example) -> tuple[str, str]:
    """What is read before the last answer in generation, and all that is taught; training must read the same."""
    asked = encode(processor, example, with_answer=False)["input_ids"].tolist()
    whole = encode(processor, example, with_answer=True)
    assert whole["input_ids"].tolist()[: len(asked)] == asked
    assert IGNORED not in whole["labels"].tolist()[len(asked) :]
    return processor.decode(asked), processor.decode([token for token in whole["labels"].tolist() if token != IGNORED])


@pytest.mark.parametrize("template", [THINKING, ALWAYS_THINKING])
def test_without_thinking_the_prompt_closes_the_thought(make: Any, template: str) -> None:
    prompt, taught = read(make(template, on=False), ask("a", "Is it red?", ANSWER))
    assert prompt.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert taught == "Yes<|im_end|>"


@pytest.mark.parametrize("template", [THINKING, ALWAYS_THINKING])
def test_with_thinking_the_end_of_the_thought_is_taught(make: Any, template: str) -> None:
    prompt, taught = read(make(template, on=True), ask("a", "Is it red?", ANSWER))
    assert prompt.endswith("<|im_start|>assistant\n<think>\n")
    assert taught == "\n</think>\n\nYes<|im_end|>"


def test_a_thought_of_an_answer_is_taught_where_the_template_leaves_it_out(make: Any) -> None:
    example = ask("a", "Is it red?", "<think>\nIt is blue.\n</think>\n\nNo")
    prompt, taught = read(make(ALWAYS_THINKING, on=True), example)
    assert prompt.endswith("assistant\n<think>\n")
    assert taught == "It is blue.\n</think>\n\nNo<|im_end|>"


def test_a_thought_of_an_answer_is_refused_where_thinking_is_off_and_text_where_there_is_none(make: Any) -> None:
    example = ask("a", "Is it red?", "<think>It is blue.</think>No")
    with pytest.raises(UserError, match=r"example 'a': turn 2 \(assistant\) holds a thought, and thinking is off"):
        encode(make(THINKING, on=False), example, with_answer=True)
    assert read(make(CHATML, on=False), example)[1] == "<think>It is blue.</think>No<|im_end|>"


@pytest.mark.parametrize("on", [False, True])
@pytest.mark.parametrize("template", [THINKING, ALWAYS_THINKING])
def test_every_turn_of_a_dialogue_is_taught_outside_of_thoughts(make: Any, template: str, on: bool) -> None:
    turns = ("user", "Is it red?"), ("assistant", "Yes"), ("user", "Is it blue?"), ("assistant", "No")
    example = Example("a", tuple(Message(role, text) for role, text in turns))  # type: ignore[arg-type]
    prompt, taught = read(make(template, on=on), example)
    assert taught in ("Yes<|im_end|>No<|im_end|>", "Yes<|im_end|>\n</think>\n\nNo<|im_end|>")
    assert prompt.count("<think>") - prompt.count("</think>") == int(on)


def test_what_is_scored_follows_the_thought(make: Any) -> None:
    for template in (THINKING, ALWAYS_THINKING):
        assert [Speaker(make(template, on=on)).says(ANSWER) for on in (False, True)] == [ANSWER, ANSWER]
    assert Speaker(make(THINKING, on=True)).says(ANSWER, 1) == "", "a thought that is not closed holds no answer"


def test_a_template_without_thoughts_is_left_alone_and_cannot_think(make: Any) -> None:
    prompt, taught = read(make(CHATML, on=False), ask("a", "Is it red?", ANSWER))
    assert prompt.endswith("<|im_start|>assistant\n") and taught == "Yes<|im_end|>"
    with pytest.raises(UserError, match="model made: its chat template has no thinking mode; remove `thinking: on`"):
        make(CHATML, on=True)


def test_thinking_goes_where_the_processor_goes(make: Any) -> None:
    on, off = (make(THINKING, on=flag) for flag in (True, False))
    assert (thinking(pickle.loads(pickle.dumps(on))), thinking(off)) == (True, False)
    assert processor_token(on) != processor_token(off)


def test_a_sweep_decides_whether_its_models_think(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config, processor = small_families.FAMILIES["qwen3_vl"]()
    processor.chat_template = THINKING.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    folder = save(tmp_path / "thinker", config, processor)
    text = {
        "name": "s",
        "orders": {"main": ["counting"]},
        "grids": [{"model": [str(folder)], "recipe": ["sa_proj"]}],
        "training": {"learning_rate": 1e-3, "max_steps": 1},
    }

    def model(**more: Any) -> Any:
        return load_sweep(write_sweep(tmp_path, yaml.safe_dump({**text, **more}))).trials[0].model

    plain, off, on = model(), model(thinking=False), model(thinking=True)
    assert plain.identity() == off.identity() != on.identity()
    assert on.identity() == {**off.identity(), "thinking": True}
    assert thinking(on.load_processor()) and not thinking(off.load_processor())
    assert get_model(on.reference).identity() == on.identity(), "a checkpoint is asked as it was taught"
    with pytest.raises(UserError, match=r"grids\[0\]\.model\[0\]: model tiny-qwen: this model has no thinking mode"):
        model(thinking=True, grids=[{"model": ["tiny-qwen"], "recipe": ["sa_proj"]}])
