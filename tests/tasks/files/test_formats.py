"""Rows of LLaVA JSON and `messages` files become Examples, or an error that names file, row and field."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from own_data import write_receipts
from PIL import Image

from lmmcl.errors import UserError
from lmmcl.tasks.examples import Message
from lmmcl.tasks.files.formats import read_examples


def human(value: Any) -> dict:
    return {"from": "human", "value": value}


def gpt(value: Any) -> dict:
    return {"from": "gpt", "value": value}


def user(content: Any) -> dict:
    return {"role": "user", "content": content}


def assistant(content: Any) -> dict:
    return {"role": "assistant", "content": content}


def write(folder: Path, *rows: Any, name: str = "rows.json") -> Path:
    path = folder / name
    if name.endswith(".json"):
        path.write_text(json.dumps(rows))
    elif name.endswith(".jsonl"):
        path.write_text("\n".join(json.dumps(row) for row in rows))
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    return path


def png(colour: tuple[int, int, int]) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(stream, "PNG")
    return stream.getvalue()


CONTAINERS = ["rows.json", "rows.jsonl", "rows.parquet"]


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_llava_row_is_read_alike_from_every_container(tmp_path: Path, name: str) -> None:
    row = {"id": "a", "image": "x/1.png", "conversations": [human("<image>\nwhat?"), gpt("red")], "shop": "corner"}
    [example] = read_examples(write(tmp_path, row, name=name))
    assert example.id == "a"
    assert example.messages == (Message("user", "<image>\nwhat?"), Message("assistant", "red"))
    assert example.images == (tmp_path / "x/1.png",)
    assert example.references == ("red",)
    assert example.metadata == {"shop": "corner"}


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_messages_row_is_read_alike_from_every_container(tmp_path: Path, name: str) -> None:
    row = {"images": ["1.png"], "messages": [user("<image>what?"), assistant("red"), user("sure?"), assistant("yes")]}
    [example] = read_examples(write(tmp_path, row, name=name))
    assert [message.role for message in example.messages] == ["user", "assistant", "user", "assistant"]
    assert example.target == "yes"
    assert example.images == (tmp_path / "1.png",)


def test_images_lie_below_the_given_folder(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    path = write(tmp_path, {"image": "1.png", "conversations": [human("<image>?"), gpt("a")]})
    assert read_examples(path, tmp_path / "pictures")[0].images == (tmp_path / "pictures/1.png",)
    with pytest.raises(UserError, match="elsewhere: no such folder of images"):
        read_examples(path, tmp_path / "elsewhere")


def test_parts_become_text_with_placeholders_in_their_places(tmp_path: Path) -> None:
    parts = [
        {"type": "image"},
        {"type": "text", "text": "before, "},
        {"type": "text", "text": "and after: "},
        {"type": "image"},
    ]
    row = {"images": ["1.png", "2.png"], "messages": [user(parts), assistant([{"type": "text", "text": "wet"}])]}
    [example] = read_examples(write(tmp_path, row))
    assert example.messages[0].content == "<image>\nbefore, and after: \n<image>"
    assert example.target == "wet"


def test_a_part_may_name_its_image_or_number_it(tmp_path: Path) -> None:
    named = {"messages": [user([{"type": "image", "image": "2.png"}, {"type": "text", "text": "?"}]), assistant("a")]}
    numbered = {
        "images": ["0.png", "1.png"],
        "messages": [user([{"type": "image", "index": 1}, {"type": "image", "index": 0}]), assistant("a")],
    }
    examples = read_examples(write(tmp_path, named, numbered))
    assert examples[0].images == (tmp_path / "2.png",)
    assert examples[1].images == (tmp_path / "1.png", tmp_path / "0.png")


def test_images_without_any_placeholder_go_before_the_first_user_turn(tmp_path: Path) -> None:
    turns = [{"from": "system", "value": "be brief"}, human("compare"), gpt("alike"), human("sure?"), gpt("yes")]
    [example] = read_examples(write(tmp_path, {"image": ["1.png", "2.png"], "conversations": turns}))
    assert [message.content for message in example.messages[:2]] == ["be brief", "<image>\n<image>\ncompare"]
    assert example.messages[3].content == "sure?"


@pytest.mark.parametrize("absent", [{}, {"image": None}, {"images": []}, {"image": ""}])
def test_rows_may_be_text_only(tmp_path: Path, absent: dict) -> None:
    [example] = read_examples(write(tmp_path, {**absent, "conversations": [human("1 + 1?"), gpt("2")]}))
    assert example.images == ()
    assert example.messages[0].content == "1 + 1?"


def test_answers_are_what_the_metric_accepts_and_a_row_without_id_has_its_number(tmp_path: Path) -> None:
    rows = [
        {"conversations": [human("?"), gpt("two")], "answers": ["2", "two"]},
        {"messages": [user("?"), assistant("b")]},
    ]
    first, second = read_examples(write(tmp_path, *rows))
    assert first.references == ("2", "two")
    assert (first.id, second.id) == ("1", "2")


def test_images_embedded_in_parquet_are_decoded_at_each_use_and_travel(tmp_path: Path) -> None:
    rows = [
        {"images": [{"bytes": png((200, 0, 0)), "path": "1.png"}], "messages": [user("<image>?"), assistant("red")]},
        {"images": [{"bytes": None, "path": "2.png"}], "messages": [user("<image>?"), assistant("blue")]},
    ]
    embedded, named = pickle.loads(pickle.dumps(read_examples(write(tmp_path, *rows, name="rows.parquet"))))
    assert [image.getpixel((0, 0)) for _ in range(2) for image in embedded.open_images()] == [(200, 0, 0)] * 2
    assert named.images == (tmp_path / "2.png",)


def test_nothing_is_opened_while_reading(tmp_path: Path) -> None:
    path = write_receipts(tmp_path, rows=3)
    for image in (tmp_path / "images").iterdir():
        image.write_bytes(b"not an image")
    assert len(read_examples(path)) == 3


def test_a_line_number_is_the_row_number(tmp_path: Path) -> None:
    good = json.dumps({"conversations": [human("?"), gpt("a")]})
    path = tmp_path / "rows.jsonl"
    path.write_text(f"\ufeff{good}\n\n{good}\n{{oops\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"rows\.jsonl: row 4: is not JSON"):
        read_examples(path)


OK = [human("?"), gpt("a")]
BAD_ROWS: list[tuple[Any, str, str]] = [
    ([], "row", "is a list where an object is expected"),
    (
        {"conversation": OK},
        "row",
        "its only column is 'conversation', but a row needs a question and an answer. 'conversation' is nearly 'conversations'.",
    ),
    ({"conversations": OK, "messages": OK}, "row", "may be read as conversations or as messages"),
    ({"conversations": "hello"}, "conversations", "is a text where a list of turns"),
    ({"conversations": []}, "conversations", "is empty"),
    ({"conversations": ["hello"]}, "conversations[0]", "is a text where an object with 'from', 'value'"),
    ({"conversations": [human(3), gpt("a")]}, "conversations[0].value", "is a number where a text is expected"),
    ({"conversations": [{"from": "humann", "value": "?"}, gpt("a")]}, "conversations[0].from", "did you mean 'human'"),
    ({"conversations": [{"value": "?"}, gpt("a")]}, "conversations[0].from", "is null where one of human, user, gpt"),
    ({"conversations": [human("?"), gpt(" ")]}, "conversations[1].value", "is empty"),
    ({"conversations": [human("?"), gpt("a"), human("?")]}, "conversations", "must end with a turn of 'gpt'"),
    ({"conversations": [gpt("a")]}, "conversations[0].from", "is 'gpt' where 'human' is expected"),
    (
        {"conversations": [human("?"), human("?"), gpt("a")]},
        "conversations[1].from",
        "is 'human' where 'gpt' is expected",
    ),
    ({"image": "1.png", "conversations": [human("?"), gpt("<image>")]}, "conversations[1].value", "only a user's turn"),
    ({"conversations": [human("<image>?"), gpt("a")]}, "conversations", "disagree: 1 <image>, 0 in the row"),
    (
        {"image": "1.png", "conversations": [human("<image><image>"), gpt("a")]},
        "conversations",
        "disagree: 2 <image>, 1",
    ),
    ({"image": ["1.png", 2], "conversations": OK}, "image[1]", "is a number where the path of an image"),
    ({"image": "https://example.org/1.png", "conversations": OK}, "image", "is a URL"),
    ({"image": {"bytes": None, "path": None}, "conversations": OK}, "image", "neither 'bytes' nor 'path'"),
    ({"image": "1.png", "images": ["1.png"], "conversations": OK}, "images", "images are given twice; also in image"),
    ({"image": "a\0b", "conversations": OK}, "image", "is not a path"),
    ({"video": "1.mp4", "conversations": OK}, "video", "only text and images"),
    ({"conversations": OK, "answers": "a"}, "answers", "is a text where a list of texts is expected"),
    ({"conversations": OK, "answers": []}, "answers", "is empty"),
    ({"conversations": OK, "answers": ["a", ""]}, "answers[1]", "is empty"),
    ({"conversations": OK, "answers": [1]}, "answers[0]", "is a number where a text is expected"),
    ({"conversations": OK, "id": 1.5}, "id", "is a number where a text or a whole number is expected"),
    ({"conversations": OK, "id": ""}, "id", "is empty"),
    ({"conversations": OK, "id": True}, "id", "is the truth value True where a text or a whole number"),
    (
        {"images": ["1.png", "2.png"], "messages": [user([{"type": "image", "index": 0}] * 2), assistant("a")]},
        "messages[0].content[1].index",
        "is 0; expected each of 0 … 1 once",
    ),
    ({"messages": [user([{"type": "imag"}]), assistant("a")]}, "messages[0].content[0].type", "did you mean 'image'"),
    ({"messages": [user([{"type": "text"}]), assistant("a")]}, "messages[0].content[0].text", "is null where a text"),
    ({"messages": [user(["?"]), assistant("a")]}, "messages[0].content[0]", "is a text where an object with 'type'"),
    ({"messages": [user(None), assistant("a")]}, "messages[0].content", "is null where a text or a list of parts"),
    (
        {"image": "1.png", "messages": [user([{"type": "image", "index": 1}]), assistant("a")]},
        "messages[0].content[0].index",
        "is 1; expected each of 0 … 0 once",
    ),
    ({"conversations": [human("\ud800"), gpt("a")]}, "conversations[0].value", "lone surrogate"),
]


@pytest.mark.parametrize(("row", "field", "message"), BAD_ROWS)
def test_a_bad_row_is_refused_by_file_row_and_field(tmp_path: Path, row: Any, field: str, message: str) -> None:
    path = write(tmp_path, {"id": "fine", "conversations": OK}, row)
    with pytest.raises(UserError) as caught:
        read_examples(path)
    assert caught.value.file == str(path)
    assert caught.value.place == ("row 2" if field == "row" else f"row 2, {field}")
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.json", b'{"a": 1}', "holds an object where a list of rows is expected"),
        ("rows.json", b'{"a": 1}\n{"a": 2}', "name it .jsonl"),
        ("rows.json", b"\xff\xfe", "is not JSON"),
        ("rows.json", b"[" * 100_000, "is not JSON"),
        ("rows.json", b"[]", "holds no rows"),
        ("rows.jsonl", b"\n\n", "holds no rows"),
        ("rows.parquet", b"PAR1nonsense", "is not a readable parquet file"),
        ("rows.xml", b"<a>", "cannot read .xml; allowed: .json, .jsonl, .parquet, .csv, .tsv, .arrow, .tar"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_examples(tmp_path / name)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(UserError, match="is a folder, not a file"):
        read_examples(tmp_path / "folder.json")
    with pytest.raises(UserError, match="no such file"):
        read_examples(tmp_path / "rows.json")


def test_an_id_is_unique_in_a_test_and_may_repeat_in_training(tmp_path: Path) -> None:
    row = {"id": "same", "conversations": OK}
    path = write(tmp_path, row, row)
    with pytest.raises(UserError, match="row 2, id: 'same' is the id of row 1 already"):
        read_examples(path)
    assert len(read_examples(path, unique_ids=False)) == 2
