"""Where a prompt ends and its answer begins: the tokens of both are those of the chat template's own text, in every turn.

Each family's template with tokenizers that cut words as real ones do: a space is a part of the word after it, an added mark of
its beginning, or taken away.
"""

from __future__ import annotations

from typing import Any

import pytest
from models import small_families
from models.word_pieces import KINDS, REAL, real_folder, word_pieces
from PIL import Image

from lmmcl.models.processing.encode import IGNORED, answer_ids, encode, prompt_ids
from lmmcl.tasks.examples import Example, Message

FAMILIES = list(small_families.FAMILIES)
SHAPES = ("llava", "smolvlm", "qwen3_vl", "gemma3")
"""Families whose templates differ at an answer: no end of a turn, a space before the answer, a new line before it, words trimmed."""
NO_END = {"llava", "llava_next"}
"""Families whose templates end no turn: the end of the text is put after each answer."""
ANSWERS = ("Yes", "12:45", "the left ventricle.", "ünï 漢字", "- a\n- b")
REAL_ONES = [
    pytest.param(
        kind, marks=[pytest.mark.slow, pytest.mark.skipif(real_folder() is None, reason="LMMCL_TEST_TOKENIZERS")]
    )
    for kind in REAL
]


PAIRS = [
    *((family, kind) for family in FAMILIES for kind in KINDS if kind == "byte_level" or family in SHAPES),
    *(pytest.param(family, *kind.values, marks=kind.marks) for family in FAMILIES for kind in REAL_ONES),
]


def processor_of(monkeypatch: pytest.MonkeyPatch, family: str, kind: str) -> Any:
    monkeypatch.setattr(small_families, "tokenizer", word_pieces(kind))
    return small_families.FAMILIES[family]()[1]


def dialogue(*answers: str) -> Example:
    """Two turns about one picture, which is shown in the first."""
    first, second = answers
    messages = (
        Message("user", "<image>\nIs it red?"),
        Message("assistant", first),
        Message("user", "Is it blue?"),
        Message("assistant", second),
    )
    return Example("two turns", messages, (Image.new("RGB", (40, 30), "red"),))


def first_turn(example: Example) -> Example:
    return Example("one turn", example.messages[:2], example.images)


def own_tokens(processor: Any, example: Example) -> list[int]:
    """The tokens of the text that the chat template writes, with the images as the processor writes them."""
    turns = [{"role": message.role, "content": content(message.content)} for message in example.messages]
    text = processor.apply_chat_template(turns, tokenize=False)
    if hasattr(processor, "leading_ids"):  # its image stands before the text
        return processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    options = processor._merge_kwargs(return_tensors="pt")["images_kwargs"]
    for written in processor._process_images([example.open_images()], **options)[1]:
        text = text.replace(processor.image_token, written, 1)
    return processor.tokenizer(text, add_special_tokens=False)["input_ids"]


def content(text: str) -> list[dict[str, str]]:
    image, found, rest = text.rpartition("<image>\n")
    return [{"type": "image"}] * bool(found) + [{"type": "text", "text": rest or image}]


@pytest.mark.parametrize(("family", "kind"), PAIRS)
def test_prompt_and_answers_are_the_tokens_of_the_rendered_dialogue(
    family: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = processor_of(monkeypatch, family, kind)
    for answer in ANSWERS:
        example = dialogue(answer, f"No, {answer}")
        ours = encode(processor, example, with_answer=True)["input_ids"].tolist()
        whole = own_tokens(processor, example)
        end = processor.tokenizer.eos_token_id
        if family in NO_END:
            assert ours.count(end) == 2
            ours = [token for token in ours if token != end]
        if hasattr(processor, "leading_ids"):
            ours = ours[processor.num_query_tokens :]
        if ours[0] == processor.tokenizer.bos_token_id and whole[0] != ours[0]:
            ours = ours[1:]
        assert ours == whole[: len(ours)], answer
        assert not processor.decode(whole[len(ours) :], skip_special_tokens=True).strip(), "nothing but space is left"


@pytest.mark.parametrize(("family", "kind"), PAIRS)
def test_every_turn_is_asked_as_it_was_taught(family: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    processor = processor_of(monkeypatch, family, kind)
    for answer in (*ANSWERS, " Yes", "\nYes", "Yes "):
        example = dialogue(answer, answer)
        taught = encode(processor, example, with_answer=True)
        for turn in (first_turn(example), example):
            asked = encode(processor, turn, with_answer=False)["input_ids"].tolist()
            assert taught["input_ids"].tolist()[: len(asked)] == asked
            answered = encode(processor, turn, with_answer=True)["labels"].tolist()[len(asked) :]
            assert taught["labels"].tolist()[len(asked) :][: len(answered)] == answered
            assert answered == answer_ids(processor, turn.messages[:-1], answer)
            text = processor.decode([token for token in answered if token != IGNORED], skip_special_tokens=True)
            assert text.strip() == answer.strip()


@pytest.mark.parametrize("kind", KINDS)
def test_a_space_that_the_template_writes_is_part_of_the_first_word(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for family in ("smolvlm", "llava"):
        processor = processor_of(monkeypatch, family, kind)
        encoded = encode(processor, dialogue("Yes", "No"), with_answer=True)
        taught = encoded["labels"][encoded["labels"] != IGNORED].tolist()
        end = processor.tokenizer.eos_token
        space = "Ġ" if kind == "byte_level" else "▁"
        assert processor.tokenizer.convert_ids_to_tokens(taught) == [f"{space}Yes", end, f"{space}No", end]


def test_a_token_over_the_end_of_the_prompt_is_cut_there(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = processor_of(monkeypatch, "qwen3_vl", "byte_level")
    tokens = processor.tokenizer.convert_ids_to_tokens
    whole = tokens(own_tokens(processor, first_turn(dialogue("\nYes", "No"))))
    assert "ĊĊ" in whole, "the template's newline and the answer's are one token"
    encoded = encode(processor, first_turn(dialogue("\nYes", "No")), with_answer=True)
    taught = encoded["labels"] != IGNORED
    assert tokens(encoded["labels"][taught].tolist()) == ["Ċ", "Yes", "<|im_end|>"]
    assert tokens(encoded["input_ids"][~taught].tolist())[-2:] == ["assistant", "Ċ"]


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in ("instructblip", "gemma3")])
def test_engines_that_expand_images_are_given_the_same_prompt(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    processor = processor_of(monkeypatch, family, "byte_level")
    example = dialogue("Yes", "No")
    whole = encode(processor, example, with_answer=False)["input_ids"].tolist()
    asked = prompt_ids(processor, example)
    mark = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    assert asked.count(mark) == 1
    at = asked.index(mark)
    assert whole[:at] == asked[:at] or family in ("internvl", "smolvlm"), (
        "these write marks before the image's own tokens"
    )
    behind = asked[at + 2 :]
    assert whole[len(whole) - len(behind) :] == behind
