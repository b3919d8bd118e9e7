"""Twelve ordinary layouts are read as one knows them; odd rows are refused by column, with what to change."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lmmcl.errors import UserError
from lmmcl.tasks.examples import Example
from lmmcl.tasks.files.formats import ParsedRow, parse_row
from lmmcl.tasks.images import EncodedImage
from lmmcl.tasks.layouts.columns import AS_NAMED, Columns, columns_from_text, columns_of
from lmmcl.tasks.layouts.row_layouts import CAPTION_QUESTION, LABEL_QUESTION


def png() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (24, 24), (200, 10, 90)).save(stream, "PNG")
    return stream.getvalue()


URL = "data:image/png;base64," + base64.b64encode(png()).decode()


def read(row: Any, columns: Columns = AS_NAMED) -> tuple[Example | None, ParsedRow]:
    parsed = ParsedRow(1)
    return parse_row(row, parsed, Path("pictures"), columns), parsed


def turns(*texts: str) -> list[tuple[str, str]]:
    return [("assistant" if number % 2 else "user", text) for number, text in enumerate(texts)]


ORDINARY: dict[str, tuple[dict[str, Any], list[tuple[str, str]], int]] = {
    "LLaVA": (
        {"image": "1.png", "conversations": [{"from": "human", "value": "<image>\n?"}, {"from": "gpt", "value": "a"}]},
        turns("<image>\n?", "a"),
        1,
    ),
    "Hugging Face messages": (
        {"images": ["1.png"], "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "a"}]},
        turns("<image>\n?", "a"),
        1,
    ),
    "OpenAI parts": (
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": URL}}],
                },
                {"role": "assistant", "content": "a"},
            ]
        },
        turns("?\n<image>", "a"),
        1,
    ),
    "ShareGPT with a system column": (
        {"system": "be brief", "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "a"}]},
        [("system", "be brief"), *turns("?", "a")],
        0,
    ),
    "ShareGPT with the keys of messages": (
        {"conversations": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "a"}]},
        turns("?", "a"),
        0,
    ),
    "ms-swift query and response": (
        {
            "system": "be brief",
            "query": "<image>and now?",
            "response": "b",
            "images": ["1.png"],
            "history": [["first?", "a"]],
        },
        [("system", "be brief"), *turns("first?", "a", "<image>and now?", "b")],
        1,
    ),
    "VQA": ({"image": "1.png", "question": "?", "answer": "a"}, turns("<image>\n?", "a"), 1),
    "VQA with several answers": (
        {"image": "1.png", "question": "?", "answers": ["b", "a", "a"]},
        turns("<image>\n?", "a"),
        1,
    ),
    "Alpaca": ({"instruction": "add", "input": "1 2", "output": "3"}, turns("add\n1 2", "3"), 0),
    "TRL prompt and completion": (
        {
            "prompt": [{"role": "user", "content": "?"}],
            "completion": [{"role": "assistant", "content": "a"}],
            "images": ["1.png"],
        },
        turns("<image>\n?", "a"),
        1,
    ),
    "image and caption": ({"file_name": "1.png", "text": "a dog"}, turns(f"<image>\n{CAPTION_QUESTION}", "a dog"), 1),
    "image and label": ({"image": "1.png", "label": "dog"}, turns(f"<image>\n{LABEL_QUESTION}", "dog"), 1),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_layout_is_told_by_its_columns(name: str) -> None:
    row, messages, images = ORDINARY[name]
    example, parsed = read(row)
    assert parsed.problems == []
    assert example is not None
    assert [(message.role, message.content) for message in example.messages] == messages
    assert len(example.images) == images


def test_there_are_twelve_ordinary_layouts_and_twenty_eight_odd_rows() -> None:
    assert len(ORDINARY) == 12
    assert len(ODD) >= 28


OK = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "a"}]
VQA = {"image": "1.png", "question": "?", "answer": "a"}
ODD: list[tuple[Any, str, str]] = [
    ({"photo": "1.jpg", "q": "?", "a": "x"}, "row", "`columns: {image: photo, question: q, answer: a}`"),
    (
        {"photo": "1.jpg", "q": "?", "price": "5", "shop": "x"},
        "row",
        "`columns: {image: photo, question: q, answer: price}`",
    ),
    ({"text": "only a text"}, "row", "unknown layout: its only column is 'text'"),
    ({}, "row", "it has no columns"),
    ({"conversation": OK}, "row", "'conversation' is nearly 'conversations'"),
    (
        {"chosen": "a", "rejected": "b", "prompt": "?"},
        "row",
        "unknown layout: its columns are chosen, rejected, prompt",
    ),
    (
        {"question": "?", "answer": "a", "query": "?", "response": "a"},
        "row",
        "question + answer or as query + response",
    ),
    (
        {"image": "1.png", "caption": "a dog", "label": "dog"},
        "row",
        "may be read as caption + caption or as label + label",
    ),
    ({"conversations": OK, "messages": OK}, "row", "may be read as conversations or as messages"),
    ({**VQA, "choices": ["x", "y"], "answer": 1}, "row", "has options to choose from ('choices')"),
    (
        {"question": "?", "answer": "a", "photo": "1.JPG"},
        "row",
        "column 'photo' looks like an image that would not be shown",
    ),
    ({**VQA, "image_2": {"bytes": b"x", "path": None}}, "row", "'image_2' looks like another image"),
    ({**VQA, "answer": None}, "answer", "is null where a text is expected"),
    ({**VQA, "answer": 0.5}, "answer", "is a number where a text is expected; write it as a text"),
    ({**VQA, "answer": True}, "answer", "is the truth value True"),
    ({**VQA, "answer": "  "}, "answer", "is empty"),
    ({**VQA, "answer": ["a", ""]}, "answer[1]", "is empty"),
    ({"image": "1.png", "question": "?", "answers": []}, "answers", "is empty"),
    ({"image": "1.png", "question": "?", "answers": ""}, "answers", "is empty"),
    ({"image": "1.png", "question": "?", "answers": "[]"}, "answers", "is empty"),
    ({"image": "1.png", "question": "?", "answers": "a, b", "id": [1]}, "id", "is a list"),
    ({**VQA, "question": None}, "question", "is null where a text is expected"),
    ({**VQA, "question": "<image> or <image>?"}, "messages", "2 <image>, 1 in the row"),
    ({**VQA, "image": "https://a.b/1.png"}, "image", "is a URL"),
    ({**VQA, "image": "data:image/png;base64,§"}, "image", "is not base64"),
    ({**VQA, "image": 7}, "image", "is a number where the path of an image is expected"),
    ({**VQA, "video": "1.mp4"}, "video", "only text and images are supported"),
    ({"image": "1.png", "label": 3}, "label", "is 3, the number of a class; expected is its name"),
    ({"caption": "a dog", "image": None}, "row", "has no image, and a caption is nothing to teach without one"),
    ({"query": "?", "response": "a", "history": [["one"]]}, "history[0]", "is not [question, answer]"),
    (
        {"conversations": [OK[0], {"from": "function_call", "value": "{}"}]},
        "conversations[1].from",
        "'function_call': calls of tools",
    ),
    (
        {"conversations": [OK[0], {"from": "observation", "value": "1"}]},
        "conversations[1].from",
        "'observation': calls of tools",
    ),
    ({"messages": [{"role": "tool", "content": "1"}]}, "messages[0].role", "'tool': calls of tools are not supported"),
    ({"conversations": OK, "tools": '[{"name": "add"}]'}, "tools", "calls of tools are not supported"),
    ({"prompt": [{"role": "user", "content": 3}], "completion": "a"}, "prompt[0].content", "is a number"),
    ({"instruction": "add", "output": {"a": 1}}, "output", "is an object where a text is expected"),
    ({"system": 5, **VQA}, "system", "is a number"),
    ("a text", "row", "is a text where an object is expected"),
]


@pytest.mark.parametrize(("row", "place", "message"), ODD)
def test_an_odd_row_is_refused_by_the_column_that_the_user_knows(row: Any, place: str, message: str) -> None:
    _, parsed = read(row)
    assert place in [where for where, _ in parsed.problems]
    assert message in " | ".join(said for _, said in parsed.problems)


def test_the_most_frequent_of_several_answers_is_taught_and_all_count() -> None:
    annotators = [{"answer": text, "answer_id": number} for number, text in enumerate(["b", "a", "a"])]
    example, _ = read({"question": "?", "answers": annotators})
    assert example is not None
    assert (example.target, example.references) == ("a", ("b", "a", "a"))


def test_the_last_turn_may_list_several_answers_of_which_the_first_is_taught() -> None:
    example, _ = read({"conversations": [OK[0], {"from": "gpt", "value": ["5", "five"]}]})
    assert example is not None
    assert (example.target, example.references) == ("5", ("5", "five"))
    example, _ = read({"question": "?", "answer": ["5", "five"]})
    assert example is not None
    assert (example.target, example.references) == ("5", ("5", "five"))
    _, parsed = read({"conversations": [OK[0], {"from": "gpt", "value": ["5", "five"]}], "answers": ["5"]})
    assert parsed.problems == [("answers", "are given twice; also in the last turn")]


def test_an_answer_beside_answers_is_taught_and_theirs_count() -> None:
    example, _ = read({"question": "?", "answer": "a", "answers": ["A", "a"]})
    assert example is not None
    assert (example.target, example.references) == ("a", ("A", "a"))


def test_texts_that_look_like_numbers_stay_texts_and_whole_numbers_become_their_digits() -> None:
    assert read({"question": "?", "answer": "007"})[0].target == "007"  # type: ignore[union-attr]
    assert read({"question": "?", "answer": 7})[0].target == "7"  # type: ignore[union-attr]


def test_a_mapping_names_the_columns_of_any_layout() -> None:
    columns = columns_of({"image": "photo", "question": "q", "answer": "a", "id": "number"})
    example, parsed = read({"photo": "1.png", "q": "?", "a": "x", "number": 9, "shop": "corner"}, columns)
    assert example is not None
    assert (example.id, example.prompt[0].content, example.target) == ("9", "<image>\n?", "x")
    assert example.images == (Path("pictures/1.png"),)
    assert example.metadata == {"shop": "corner"}
    assert parsed.image_fields == ("photo",)
    assert columns == columns_from_text("image=photo, question=q, answer=a, id=number")


def test_a_mapping_settles_what_would_be_ambiguous() -> None:
    row = {"question": "?", "answer": "a", "query": "no?", "response": "b", "choices": ["a"]}
    example, _ = read(row, columns_of({"question": "query", "answer": "response"}))
    assert example is not None
    assert (example.prompt[0].content, example.target) == ("no?", "b")


def test_what_is_wrong_is_told_of_the_column_that_the_mapping_names() -> None:
    columns = columns_of({"image": "photo", "question": "q", "answer": "a"})
    assert read({"photo": "1.png", "q": "", "a": "x"}, columns)[1].problems == [("q", "is empty")]
    assert read({"photo": 3, "q": "?", "a": "x"}, columns)[1].problems[0][0] == "photo"
    [(place, message)] = read({"photo": "1.png", "question": "?", "a": "x"}, columns)[1].problems
    assert (place, message) == ("row", "has no column 'q' (question); its columns: photo, question, a")
    mapped = columns_of({"conversations": "chat"})
    assert read({"chat": [OK[0], {"from": "gpt", "value": ""}]}, mapped)[1].problems == [("chat[1].value", "is empty")]


@pytest.mark.parametrize("empty", [None, "", [], "[]"])
def test_an_empty_list_of_accepted_answers_beside_an_answer_is_as_none(empty: Any) -> None:
    example, _ = read({"image": "1.png", "question": "?", "answer": "a", "answers": empty}, columns_of({}))
    assert example is not None
    assert example.references == ("a",)


@pytest.mark.parametrize("name", ["answers", "ok"])
def test_a_cell_that_lists_accepted_answers_is_read_whatever_its_column_is_called(name: str) -> None:
    columns = columns_of({} if name == "answers" else {"answers": name})
    example, _ = read({"image": "1.png", "question": "?", name: '["a", "b", "b"]'}, columns)
    assert example is not None
    assert (example.target, tuple(example.answers)) == ("b", ("a", "b", "b"))


def test_images_in_several_columns_are_shown_in_the_order_of_the_mapping() -> None:
    columns = columns_of({"images": ["left", "right"]})
    row = {"left": "1.png", "right": None, "question": "?", "answer": "a"}
    assert read(row, columns)[0].images == (Path("pictures/1.png"),)  # type: ignore[union-attr]
    row["right"] = "2.png"
    assert [path.name for path in read(row, columns)[0].images] == ["1.png", "2.png"]  # type: ignore[union-attr]


def test_a_question_may_be_given_to_rows_that_hold_none() -> None:
    asked = columns_of(None, "Which bird is it?")
    for row in (
        {"image": "1.png", "label": "crow"},
        {"image": "1.png", "answer": "crow"},
        {"image": "1.png", "text": "crow"},
    ):
        example, _ = read(row, asked)
        assert example is not None
        assert (example.prompt[0].content, example.target) == ("<image>\nWhich bird is it?", "crow")
    [(_, message)] = read(VQA, asked)[1].problems
    assert message == "has a question ('question'), and the sweep gives one too; leave one out"


@pytest.mark.parametrize(
    ("mapping", "question", "message"),
    [
        ({"picture": "a"}, None, "unknown column 'picture'"),
        ({"question": "a", "answer": "a"}, None, "'a' is both question and answer"),
        ({"question": ["a", "b"]}, None, "question is one column"),
        ({"image": "a", "images": "b"}, None, "image and images are the same"),
        ({"question": "a"}, "Which?", "leave one out"),
        ({}, " ", "is empty"),
    ],
)
def test_a_mapping_that_cannot_be_meant_is_refused(mapping: Any, question: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        columns_of(mapping, question)


def test_images_may_be_data_urls_base64_and_lists_in_a_cell() -> None:
    picture = png()
    plain = base64.b64encode(picture + b"\0" * 200).decode()
    for value in (URL, [URL], plain):
        example, _ = read({"image": value, "question": "?", "answer": "a"})
        assert example is not None
        assert isinstance(example.images[0], EncodedImage)
        assert example.images[0].data.startswith(picture)
    cell = json.dumps(["1.png", "2.png"])
    assert len(read({"images": cell, "question": "?", "answers": '["a", "b"]'})[0].images) == 2  # type: ignore[union-attr]
    assert read({"images": cell, "question": "?", "answers": '["a", "b"]'})[0].references == ("a", "b")  # type: ignore[union-attr]
