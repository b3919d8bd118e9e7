"""What looks like a placeholder is refused where a placeholder stands, and noted where it may be spoken of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lmmcl.cli import app
from lmmcl.errors import UserError
from lmmcl.tasks.files.check import check_file
from lmmcl.tasks.files.formats import read_examples


def write(folder: Path, *questions: str, answer: str = "red") -> Path:
    rows = [
        {"id": f"r{number}", "conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": answer}]}
        for number, text in enumerate(questions)
    ]
    path = folder / "rows.json"
    path.write_text(json.dumps(rows))
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<Image>\nWhat is this?", "'<Image>', which shows no image: the placeholder is <image>"),
        ("< image >\nWhat is this?", "'< image >', which shows no image"),
        ("What is this?\n<IMAGE>", "'<IMAGE>', which shows no image"),
        ("<image/> What is this?", "'<image/>', which shows no image"),
        ("<video>\nWhat happens?", "'<video>': only text and images are supported"),
        ("Listen:\n<audio>\nWho speaks?", "'<audio>': only text and images are supported"),
    ],
)
def test_a_placeholder_that_is_none_is_refused_by_file_row_and_field(text: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, "What?", text)
    with pytest.raises(UserError) as told:
        read_examples(path)
    assert f"{path}: row 2, conversations[0].value: holds {message}" in str(told.value)


@pytest.mark.parametrize("text", ["What does the <video> tag of a page do?", "Is <Image> or <audio> older, you think?"])
def test_one_that_is_spoken_of_is_read_as_text_and_noted(text: str, tmp_path: Path) -> None:
    path = write(tmp_path, "What?", text)
    assert read_examples(path)[1].messages[0].content == text
    (note, *_) = check_file(path).notes()
    assert note.startswith("1 text with '<") and note.endswith(
        ", read as plain text (first: row 2, conversations[0].value)"
    )


def test_the_placeholder_itself_is_none_of_them(tmp_path: Path) -> None:
    assert check_file(write(tmp_path, "What is a tag like <b>?", "a < image > b?")).problems == []


def test_a_check_for_a_model_tells_how_its_tokenizer_reads_the_texts(tmp_path: Path) -> None:
    path = write(tmp_path, "What?", "What is <|image_pad|>?", answer="<|vision_start|>red <end>")
    shown = CliRunner().invoke(app, ["data", "check", str(path), "--model", "tiny-qwen"])
    assert shown.exit_code == 0
    lines = shown.output.splitlines()
    plain = "a control token of the model, read as plain text"
    assert f"note: 1 text with '<|image_pad|>', {plain} (first: row 2, conversations[0].value)" in lines
    assert f"note: 2 texts with '<end>', {plain} (first: row 1, conversations[1].value)" in lines
    own = "'<|vision_start|>', read as the model's own token (first: row 1, conversations[1].value)"
    assert f"note: 2 texts with {own}" in lines
    without = CliRunner().invoke(app, ["data", "check", str(path)])
    assert "note" not in without.output
