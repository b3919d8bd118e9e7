"""Whatever a file holds: it is read into sound Examples, or refused as a user's mistake; nothing else escapes."""

from __future__ import annotations

import copy
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lmmcl.errors import UserError
from lmmcl.tasks.examples import IMAGE_PLACEHOLDER, Example
from lmmcl.tasks.files.check import check_file
from lmmcl.tasks.files.formats import ParsedRow, parse_row, read_examples
from lmmcl.tasks.files.parse_rows import SUFFIXES

SOUND: list[dict[str, Any]] = [
    {
        "id": "a",
        "image": ["1.png", "2.png"],
        "conversations": [
            {"from": "system", "value": "be brief"},
            {"from": "human", "value": "<image> or <image>?"},
            {"from": "gpt", "value": "red"},
        ],
        "answers": ["red", "Red"],
        "shop": "corner",
    },
    {
        "id": 2,
        "images": [{"bytes": None, "path": "1.png"}],
        "messages": [
            {"role": "user", "content": [{"type": "image", "index": 0}, {"type": "text", "text": "?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "blue"}]},
        ],
    },
    {
        "messages": [
            {"role": "user", "content": [{"type": "image", "path": "1.png"}]},
            {"role": "assistant", "content": "x"},
        ]
    },
]
WORDS = st.sampled_from(
    ["", " ", "<image>", "human", "gpt", "user", "assistant", "image", "text", "http://a", "\0", "\ud800"]
)
LONG_NAME = st.just("x" * 5000)
PLAIN = st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | WORDS | LONG_NAME | st.text(max_size=8)
KEYS = st.sampled_from(
    [*SOUND[0], *SOUND[1], "from", "value", "role", "content", "type", "text", "path", "bytes", "video"]
)
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)


def places(node: Any, path: tuple = ()) -> list[tuple]:
    """The path of every value below a node."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [found for key, value in inner for found in [(*path, key), *places(value, (*path, key))]]


@st.composite
def damaged_rows(draw: st.DrawFn) -> Any:
    """A sound row with up to three of its values replaced, removed or accompanied by others."""
    row = copy.deepcopy(draw(st.sampled_from(SOUND)))
    for _ in range(draw(st.integers(0, 3))):
        *way, last = draw(st.sampled_from(places(row)))
        node = row
        for key in way:
            node = node[key]
        kind = draw(st.sampled_from(["replace", "remove", "add"]))
        if kind == "remove":
            del node[last]
        elif kind == "add" and isinstance(node, dict):
            node[draw(KEYS)] = draw(VALUES)
        else:
            node[last] = draw(VALUES)
        if not places(row):
            break
    return row


def assert_sound(read: Example) -> None:
    """What training and evaluation rely on."""
    assert [m.role for m in read.messages if m.role != "system"] == ["user", "assistant"] * (len(read.messages) // 2)
    assert all(message.content.strip() for message in read.messages)
    assert sum(m.content.count(IMAGE_PLACEHOLDER) for m in read.messages if m.role == "user") == len(read.images)
    assert all(IMAGE_PLACEHOLDER not in message.content for message in read.messages if message.role != "user")
    assert all(isinstance(answer, str) and answer.strip() for answer in read.references)
    for text in (read.id, *read.references, *map(str, read.images), *(message.content for message in read.messages)):
        text.encode()
    json.dumps(dict(read.metadata), ensure_ascii=False).encode()


@settings(max_examples=600, deadline=None, database=None)
@given(damaged_rows() | VALUES)
def test_a_row_becomes_a_sound_example_or_problems(row: Any) -> None:
    parsed = ParsedRow(1)
    read = parse_row(row, parsed, Path())
    if parsed.problems:
        for field, message in parsed.problems:
            f"{field}{message}".encode()
    else:
        assert read is not None
        assert len(parsed.image_fields) == len(read.images)
        assert_sound(read)


def assert_read_or_refused(path: Path) -> None:
    """The loader and the check agree, and neither raises anything but UserError."""
    report = check_file(path)
    str_problems = [str(problem) for problem in report.problems]
    json.dumps(report.to_dict())
    try:
        examples = read_examples(path)
    except UserError as error:
        assert str_problems, f"refused, but found in order: {error}"
    else:
        assert len(examples) == report.rows
        assert all(problem.field.partition("[")[0] in ("image", "images", "messages") for problem in report.problems)


@settings(max_examples=150, deadline=None, database=None)
@given(st.lists(damaged_rows() | VALUES, max_size=4), st.sampled_from([".json", ".jsonl"]))
def test_a_file_of_damaged_rows_is_read_or_refused(rows: list, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"rows{suffix}"
        path.write_text(json.dumps(rows) if suffix == ".json" else "\n".join(map(json.dumps, rows)))
        assert_read_or_refused(path)


@settings(max_examples=150, deadline=None, database=None)
@given(st.binary(max_size=60), st.sampled_from(SUFFIXES))
@example(b"[" * 50_000, ".jsonl")
@example(b'[{"conversations": 1' + b"0" * 5000 + b"}]", ".json")
@example(b"PAR1PAR1", ".parquet")
def test_a_file_of_any_bytes_is_read_or_refused(content: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"rows{suffix}"
        path.write_bytes(content)
        assert_read_or_refused(path)


def parquet_bytes() -> bytes:
    import pyarrow
    import pyarrow.parquet

    turns = [{"role": "user", "content": "<image>?"}, {"role": "assistant", "content": "é"}]
    table = pyarrow.Table.from_pylist([{"image": {"bytes": b"GIF89a", "path": None}, "messages": turns}] * 3)
    stream = io.BytesIO()
    pyarrow.parquet.write_table(table, stream)
    return stream.getvalue()


def cut(data: bytes, at: int) -> bytes:
    return data[:at]


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


@pytest.mark.parametrize("damage", [cut, flip])
def test_a_damaged_parquet_file_is_read_or_refused(tmp_path: Path, damage: Callable[[bytes, int], bytes]) -> None:
    data, path = parquet_bytes(), tmp_path / "rows.parquet"
    for at in range(0, len(data), max(1, len(data) // 150)):
        path.write_bytes(damage(data, at))
        assert_read_or_refused(path)
