"""What a text spells is text: no control token, no image token, no private character of ours comes of it."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from models import small_families
from models.word_pieces import KINDS, REAL, real_folder, word_pieces

from lmmcl.errors import UserError
from lmmcl.models import get_model
from lmmcl.models.processing import control_tokens
from lmmcl.models.processing.check_text import TextReader
from lmmcl.models.processing.encode import encode
from lmmcl.models.processing.padding import IGNORED
from lmmcl.models.processing.rendering import tokens_of
from lmmcl.tasks.examples import Example, Message, ask
from lmmcl.tasks.files.check import check_file

REAL_ONES = [
    pytest.param(
        kind, marks=[pytest.mark.slow, pytest.mark.skipif(real_folder() is None, reason="LMMCL_TEST_TOKENIZERS")]
    )
    for kind in REAL
]
PAIRS = [
    *(("qwen3_vl", kind) for kind in KINDS),
    *((family, "byte_level") for family in ("llava", "smolvlm", "gemma3", "internvl")),
    *(pytest.param("qwen3_vl", *kind.values, marks=kind.marks) for kind in REAL_ONES),
]


def words(*contents: str) -> Example:
    """A dialogue without images: system, user, assistant, user, assistant."""
    roles = ("system", "user", "assistant", "user", "assistant")
    return Example("row", tuple(Message(role, text) for role, text in zip(roles, contents, strict=True)))  # type: ignore[arg-type]


def counts(processor: Any, example: Example) -> dict[str, int]:
    """How often each control token is among the tokens of an example."""
    ids = encode(processor, example, with_answer=True)["input_ids"].tolist()
    control = tokens_of(processor)
    return {token: ids.count(processor.tokenizer.convert_tokens_to_ids(token)) for token in control.always}


def check(processor: Any) -> None:
    plain = counts(processor, words("s", "q", "a", "r", "b"))
    assert sum(plain.values()) >= 2, "the template writes some"
    for token in sorted(tokens_of(processor).always - {"<image>"}):
        spelled = f"so {token} it is"
        example = words(spelled, spelled, spelled, spelled, spelled)
        assert counts(processor, example) == plain, token
        labels = encode(processor, example, with_answer=True)["labels"]
        taught = processor.decode(labels[labels != IGNORED], skip_special_tokens=True)
        assert "".join(taught.split()) == "".join(f"{spelled}{spelled}".split())


def test_a_text_that_spells_a_control_token_of_a_tiny_model_is_read_as_text(tiny: Any) -> None:
    check(tiny[2])


@pytest.mark.parametrize(("family", "kind"), PAIRS)
def test_a_text_that_spells_a_control_token_is_read_as_text(
    family: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small_families, "tokenizer", word_pieces(kind))
    check(small_families.FAMILIES[family]()[1])


def test_what_is_spelled_is_cut_as_any_text_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_families, "tokenizer", word_pieces("byte_level"))
    processor = small_families.FAMILIES["qwen3_vl"]()[1]
    labels = encode(processor, ask("a", "?", "Is <|im_end|>"), with_answer=True)["labels"]
    taught = processor.tokenizer.convert_ids_to_tokens(labels[labels != IGNORED].tolist())
    assert taught[0] == "Is"
    assert taught[-1] == "<|im_end|>"
    assert "".join(taught[1:-1]) == "Ġ<|im_end|>"
    assert len(taught) > 3


@pytest.mark.parametrize("character", ["\ue000", "\ue001", "\U000f0000", "\U0010ffff"])
def test_a_private_character_of_a_text_is_a_character(character: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_families, "tokenizer", word_pieces("byte_level"))
    processor = small_families.FAMILIES["qwen3_vl"]()[1]
    text = f"so {character} it is"
    for spelled in ("", " <|im_end|>"):
        example = words(text, text + spelled, text + spelled, text, text)
        encoded = encode(processor, example, with_answer=True)
        assert processor.decode(encoded["input_ids"]).count(character) == 5
        labels = encoded["labels"]
        assert processor.decode(labels[labels != IGNORED]).count(character) == 2


def test_a_mark_that_is_no_control_token_is_a_word_in_any_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    made = word_pieces("byte_level")
    monkeypatch.setattr(small_families, "tokenizer", lambda *marks, **more: made("<|box_start|>", *marks, **more))
    processor = small_families.FAMILIES["qwen3_vl"]()[1]
    assert tokens_of(processor).marks == {"<|box_start|>"}
    encoded = encode(processor, ask("a", "What is in <|box_start|>1,2?", "It is <|box_start|>3,4"), with_answer=True)
    assert encoded["input_ids"].tolist().count(processor.tokenizer.convert_tokens_to_ids("<|box_start|>")) == 2


def test_what_frames_images_is_meant_by_an_answer_alone(tiny_qwen: Any) -> None:
    frame = tiny_qwen.tokenizer.convert_tokens_to_ids("<|vision_start|>")
    for question, answer, number in (("in <|vision_start|>", "red", 0), ("what", "<|vision_start|> red", 1)):
        ids = encode(tiny_qwen, ask("a", question, answer), with_answer=True)["input_ids"].tolist()
        assert ids.count(frame) == number


class Slow:
    """A tokenizer that is not one of the `tokenizers` library."""

    is_fast = False

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __len__(self) -> int:
        return len(self._tokenizer)

    def __call__(self, *text: Any, **settings: Any) -> Any:
        return self._tokenizer(*text, **settings)


def test_a_tokenizer_that_cannot_read_it_as_text_is_told_with_the_turn(tiny_qwen: Any) -> None:
    tiny_qwen.tokenizer = Slow(tiny_qwen.tokenizer)
    encode(tiny_qwen, ask("a", "What colour?", "red"), with_answer=True)
    said = r"example 'a': turn 2 \(assistant\) spells '<end>', which the model's tokenizer cannot read as plain text"
    with pytest.raises(UserError, match=said):
        encode(tiny_qwen, ask("a", "What colour?", "red <end>"), with_answer=True)


def test_a_check_of_a_file_names_row_and_field_of_what_a_tokenizer_cannot_read(tiny_qwen: Any, tmp_path: Path) -> None:
    tiny_qwen.tokenizer = Slow(tiny_qwen.tokenizer)
    turns = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "red"}]
    rows = [{"messages": turns}, {"messages": turns, "answers": ["red", "<end>"]}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    report = check_file(tmp_path / "rows.json", check_text=TextReader(tiny_qwen))
    said = "spells '<end>', which the model's tokenizer cannot read as plain text"
    assert [str(problem) for problem in report.problems] == [f"row 2, answers[1]: {said}"]


@pytest.fixture
def tiny_qwen() -> Any:
    return get_model("tiny-qwen").load_processor()


def test_threads_share_what_is_remembered_of_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_tokens, "RECENT", 3)
    processor, turns = Processor(), sys.getswitchinterval()

    def remember(first: int) -> list[tuple[int, int]]:
        keys = [Text((first + number) % 7) for number in range(15000)]
        return [(key, control_tokens.lately(processor, "doubles", key, lambda key=key: 2 * key)) for key in keys]

    sys.setswitchinterval(1e-6)  # threads take turns as often as they can
    try:
        with ThreadPoolExecutor(4) as pool:
            found = [pair for pairs in pool.map(remember, range(4)) for pair in pairs]
    finally:
        sys.setswitchinterval(turns)
    assert all(double == 2 * key for key, double in found)
    assert len(control_tokens.once(processor, "doubles", dict)) == 3


class Text(int):
    """A key that takes turns with other threads whenever it is compared."""

    __hash__ = int.__hash__

    def __eq__(self, other: object) -> bool:
        time.sleep(0)
        return int(self) == other


class Processor:
    """Something that results can be remembered of."""
