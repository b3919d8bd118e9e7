"""Rows of every container: as they are stored, with the numbers that the user's own tools show."""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lmmcl.errors import UserError
from lmmcl.tasks.files.parse_rows import Unreadable, read_rows
from lmmcl.tasks.readers import json_rows

ROWS = [
    {"question": "?", "answer": "007", "image": "a.png"},
    {"question": 'a "b", c\nd', "answer": "1e5", "image": "b.png"},
]


def write_json(path: Path) -> None:
    path.write_text(json.dumps(ROWS))


def write_lines(path: Path) -> None:
    path.write_text("\n".join(map(json.dumps, ROWS)))


def write_table(path: Path) -> None:
    import csv

    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(ROWS[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(ROWS)


def write_parquet(path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)


def write_arrow(path: Path) -> None:
    import pyarrow

    table = pyarrow.Table.from_pylist(ROWS)
    with pyarrow.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table)


CONTAINERS: dict[str, Callable[[Path], None]] = {
    "rows.json": write_json,
    "rows.jsonl": write_lines,
    "rows.csv": write_table,
    "rows.tsv": write_table,
    "rows.parquet": write_parquet,
    "rows.arrow": write_arrow,
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_gives_the_same_rows_and_no_text_becomes_a_number(tmp_path: Path, name: str) -> None:
    CONTAINERS[name](tmp_path / name)
    found = list(read_rows(tmp_path / name))
    assert [row for _, row in found] == ROWS
    assert [number for number, _ in found] == ([2, 3] if name.endswith("sv") else [1, 2])


def test_a_json_list_is_read_in_windows_of_any_size_as_json_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(3)
    values = [
        draw.choice([{"a": 'x\\"ü\U0001f600' * n, "b": [n, -1.5e3, None]}, n, "t" * n, [], {}, True]) for n in range(60)
    ]
    for text in (
        json.dumps(values),
        json.dumps(values, indent=2, ensure_ascii=False),
        " [ ] ",
        f"\ufeff{json.dumps(values)}\n",
    ):
        (tmp_path / "rows.json").write_text(text, encoding="utf-8")
        for size in (1, 7, 64, 1 << 20):
            monkeypatch.setattr(json_rows, "WINDOW", size)
            assert [row for _, row in read_rows(tmp_path / "rows.json")] == json.loads(text.removeprefix("\ufeff"))


@pytest.mark.parametrize(
    ("text", "rows", "message"),
    [
        ('[{"a": 1},\n {"b": tru }]', 1, "Expecting value: line 2 column 8"),
        ('[{"a": 1}\n {"b": 2}]', 1, "Expecting ',' delimiter: line 2 column 2"),
        ('[{"a": 1}', 1, "Expecting ',' delimiter: line 1 column 10"),
        ('[{"a": 1},', 1, "Expecting value: line 1 column 11"),
        ('[{"a": "x', 0, "Unterminated string starting at: line 1 column 8"),
        ("[] []", 0, "Extra data: line 1 column 4"),
        ('{"a": 1}\n{"a": 2}', 0, "one object a line? then name it .jsonl"),
        ('{"a": 1}', 0, "holds an object where a list of rows is expected"),
        ("", 0, "Expecting value: line 1 column 1"),
        ("[" * 100_000, 0, "is not JSON"),
    ],
)
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_a_json_file_that_breaks_gives_the_rows_before_and_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, rows: int, message: str, size: int
) -> None:
    monkeypatch.setattr(json_rows, "WINDOW", size)
    (tmp_path / "rows.json").write_text(text)
    found: list[Any] = []
    with pytest.raises(UserError) as caught:
        found.extend(_collecting(read_rows(tmp_path / "rows.json"), found))
    assert message in str(caught.value)
    assert len(found) == rows


def _collecting(rows: Any, found: list[Any]) -> list[Any]:
    for row in rows:
        found.append(row)
    return []


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("rows.csv", "q;a\n1;2", "has one column, 'q;a', separated by ';'? Save it with commas"),
        ("rows.tsv", "q,a\n1,2", "separated by ','? Save it with tabs, or name it .csv"),
        ("rows.csv", "a,a\n1,2", "two columns are named 'a'"),
        ("rows.csv", "a,\n1,2", "column 2 has no name"),
        ("rows.csv", "", "holds no rows"),
        ("rows.csv", 'a,b\n"1,2\n3,4', "is not a table: line 3: unexpected end of data"),
    ],
)
def test_a_table_that_cannot_be_told_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        list(read_rows(tmp_path / name))


def test_a_row_of_a_table_with_other_cells_than_columns_does_not_hide_the_others(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n1,\n1,2,3\n\n4,5\n")
    rows = list(read_rows(tmp_path / "rows.csv"))
    assert rows[0] == (2, {"a": "1", "b": None})
    assert rows[1] == (3, Unreadable("has 3 cells, and the file 2 columns"))
    assert rows[2] == (5, {"a": "4", "b": "5"})


def test_a_table_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes("a,b\nÜ,2".encode("latin-1"))
    with pytest.raises(UserError, match="save it as UTF-8"):
        list(read_rows(tmp_path / "rows.csv"))


def test_a_saved_data_set_is_read_with_the_names_of_its_classes(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=["crow", "jay"]), answer=datasets.Value("string")
    )
    Image.new("RGB", (4, 4)).save(tmp_path / "1.png")
    data = datasets.Dataset.from_dict(
        {"image": [str(tmp_path / "1.png")] * 3, "label": [1, 0, -1], "answer": ["007", "1", "2"]}, features=features
    )
    data.save_to_disk(tmp_path / "saved", num_shards=2)
    data.to_parquet(tmp_path / "rows.parquet")
    datasets.DatasetDict(train=data).save_to_disk(tmp_path / "several")
    for path in (tmp_path / "saved", tmp_path / "rows.parquet"):
        rows = list(read_rows(path))
        assert [number for number, _ in rows] == [1, 2, 3]
        assert [(row["label"], row["answer"]) for _, row in rows] == [("jay", "007"), ("crow", "1"), (None, "2")]
    with pytest.raises(UserError, match=r"holds several splits; name .*several/train"):
        list(read_rows(tmp_path / "several"))


def test_an_archive_gives_a_row_for_each_name(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "rows.tar", "w") as archive:
        for name, data in [
            ("a/1.json", b'{"question": "?", "answer": "x", "image": "elsewhere.jpg"}'),
            ("a/1.left.jpg", b"left"),
            ("a/1.right.jpg", b"right"),
            ("a/2.jpg", b"two"),
            ("a/2.txt", b"a dog\n"),
            ("a/3.cls", b"crow"),
            ("a/4.json", b"[1"),
        ]:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    rows = list(read_rows(tmp_path / "rows.tar"))
    assert rows[0] == (1, {"id": "a/1", "question": "?", "answer": "x", "images": [b"left", b"right"]})
    assert rows[1] == (2, {"id": "a/2", "text": "a dog", "images": [b"two"]})
    assert rows[2] == (3, {"id": "a/3", "label": "crow"})
    assert rows[3][0] == 4
    assert rows[3][1].reason.startswith("a/4.json: Expecting")
    (tmp_path / "bad.tar").write_bytes(b"no archive")
    with pytest.raises(UserError, match="is not a readable tar archive"):
        list(read_rows(tmp_path / "bad.tar"))


def test_a_folder_of_classes_gives_image_and_label(tmp_path: Path) -> None:
    for name in ("jay/2.jpg", "crow/deep/1.PNG", "crow/notes.txt", "crow/.hidden.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert list(read_rows(tmp_path)) == [
        (1, {"image": "crow/deep/1.PNG", "label": "crow"}),
        (2, {"image": "jay/2.jpg", "label": "jay"}),
    ]
    (tmp_path / "loose.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds 1 images beside the folders of its classes \(first: 'loose.png'\)"):
        list(read_rows(tmp_path))


def test_a_folder_with_metadata_is_read_by_it(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("file_name,text\n1.png,a dog\n")
    assert list(read_rows(tmp_path)) == [(2, {"file_name": "1.png", "text": "a dog"})]
    (tmp_path / "metadata.jsonl").write_text("")
    with pytest.raises(UserError, match=r"has metadata.csv and metadata.jsonl; keep one"):
        list(read_rows(tmp_path))


def test_a_folder_of_splits_or_of_data_files_is_refused_with_what_to_name(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    with pytest.raises(UserError, match=r"holds splits, not classes; name .*train or .*val"):
        list(read_rows(tmp_path))
    (tmp_path / "train/0.parquet").write_bytes(b"")
    with pytest.raises(UserError, match=r"is a folder of data files; name one of them, or all: .*\*\.parquet"):
        list(read_rows(tmp_path / "train"))
    with pytest.raises(UserError, match="no such file or folder"):
        list(read_rows(tmp_path / "nothing"))
