"""A data check lists every bad row of a file by row number and field."""

from __future__ import annotations

import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from own_data import llava_row, write_receipts
from PIL import Image
from typer.testing import CliRunner

from lmmcl.cli import app
from lmmcl.errors import UserError
from lmmcl.tasks.files.check import check_file
from lmmcl.tasks.files.check_report import Problem
from lmmcl.tasks.files.formats import read_examples
from lmmcl.tasks.files.image_check import PixelBudget


def test_a_good_file_is_counted_and_has_no_problems(tmp_path: Path) -> None:
    path = write_receipts(tmp_path, rows=5)
    rows = json.loads(path.read_text())
    rows.append({"conversations": [{"from": "human", "value": "1 + 1?"}, {"from": "gpt", "value": "2"}]})
    path.write_text(json.dumps(rows))
    report = check_file(path)
    assert report.to_dict() == {
        "file": str(path),
        "rows": 6,
        "turns": 12,
        "images": 5,
        "text_only": 1,
        "problems": [],
        "conversions": {},
        "texts": {},
        "bad_rows": 0,
        "missing_images": 0,
        "groups": [],
        "answers": {"<=1": 6},
        "layouts": {},
        "smallest": (32, 32),
        "largest": (32, 32),
        "opened": True,
        "tokens": None,
        "remedies": [],
        "problem_count": 0,
    }
    assert report.summary() == f"{path}: 6 rows (1 without image), 12 turns, 5 images; no problems"


def test_every_bad_row_is_listed_by_number_and_field(tmp_path: Path) -> None:
    path = write_receipts(tmp_path, rows=6)
    rows: list[Any] = json.loads(path.read_text())
    (tmp_path / rows[0]["image"]).unlink()
    broken = tmp_path / rows[1]["image"]
    broken.write_bytes(broken.read_bytes()[:60])
    rows[2]["conversations"][0]["value"] = "no <image> or <image>"
    rows[3]["conversations"][1]["value"] = ""
    rows[3]["answers"] = [7]
    rows[4]["id"] = rows[5]["id"]
    rows.append("not a row")
    path.write_text(json.dumps(rows))
    report = check_file(path)
    assert [(problem.row, problem.field) for problem in report.problems] == [
        (1, "image"),
        (2, "image"),
        (3, "conversations"),
        (4, "conversations[1].value"),
        (4, "answers[0]"),
        (6, "id"),
        (7, "row"),
    ]
    assert report.rows == 7
    assert report.bad_rows == 6
    assert report.summary().endswith("; problems: 7, in 6 rows")
    assert "no such file" in report.problems[0].message
    assert "image" in report.problems[1].message
    assert json.loads(json.dumps(report.to_dict()))["problems"][2]["row"] == 3


def test_an_image_that_many_rows_show_is_named_in_each_of_them(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"GIF89a")
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([llava_row(str(number), "1.png", "?", "a") for number in range(3)]))
    assert [(problem.row, problem.field) for problem in check_file(path).problems] == [(n, "image") for n in (1, 2, 3)]


def test_lines_that_are_not_json_do_not_hide_the_lines_after_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = json.dumps({"conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "a"}]})
    path.write_text(f"{good}\n{{\n{good}\n[\n")
    report = check_file(path)
    assert [problem.row for problem in report.problems] == [2, 4]
    assert (report.rows, report.turns) == (4, 4)


@pytest.mark.parametrize(("content", "field"), [("{}", "content"), ("[", "content"), ("[]", "rows")])
def test_a_file_without_rows_is_a_problem_of_the_file_as_a_whole(tmp_path: Path, content: str, field: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(content)
    [problem] = check_file(path).problems
    assert (problem.row, problem.field) == (None, field)
    assert str(problem).startswith(f"file, {field}: ")


def test_images_embedded_in_parquet_are_decoded_too(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "a"}]
    good = (write_receipts(tmp_path, rows=1).parent / "images/train-0.png").read_bytes()
    rows = [{"image": {"bytes": data, "path": None}, "messages": turns} for data in (good, good[:50], b"nonsense")]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    report = check_file(tmp_path / "rows.parquet")
    assert [(problem.row, problem.field) for problem in report.problems] == [(2, "image"), (3, "image")]


def test_there_is_nothing_to_check_without_a_file_or_its_folder_of_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        check_file(tmp_path / "rows.json")
    path = write_receipts(tmp_path, rows=1)
    with pytest.raises(UserError, match="no such folder of images"):
        check_file(path, tmp_path / "elsewhere")


def test_a_problem_is_told_in_one_line() -> None:
    assert str(Problem(3, "image", "no such file")) == "row 3, image: no such file"


def test_what_is_done_to_images_is_noted_with_a_count_and_the_first_of_them(tmp_path: Path) -> None:
    path = write_receipts(tmp_path, rows=5)
    for number in (1, 3):
        Image.new("RGBA", (8, 8)).save(tmp_path / f"images/train-{number}.png")
    Image.new("CMYK", (8, 8)).save(tmp_path / "images/train-4.png", "JPEG")
    report = check_file(path)
    assert report.problems == []
    assert report.notes() == [
        "2 images with transparency, shown on white (first: row 2, image)",
        "1 image converted from CMYK without colour profile (first: row 5, image)",
    ]
    assert report.to_dict()["conversions"]["with transparency, shown on white"] == {
        "images": 2,
        "row": 2,
        "field": "image",
    }


def test_an_image_that_claims_too_many_pixels_is_a_problem_of_its_row(tmp_path: Path) -> None:
    path = write_receipts(tmp_path, rows=3)
    Image.new("1", (10_000, 11_000)).save(tmp_path / "images/train-1.png")
    assert (tmp_path / "images/train-1.png").stat().st_size < 20_000
    [problem] = check_file(path).problems
    assert (problem.row, problem.field) == (2, "image")
    assert "has 10000 x 11000 pixels (110 megapixels); allowed: up to 100 megapixels" in problem.message


def test_images_are_decoded_together_only_as_far_as_their_pixels_are_few() -> None:
    budget, most, now = PixelBudget(100), 0, 0
    counting = threading.Lock()

    def decode(pixels: int) -> None:
        nonlocal most, now
        with budget.taking(pixels):
            with counting:
                now += pixels
                most = max(most, now)
            time.sleep(0.002)
            with counting:
                now -= pixels

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, [100, 30, 30, 30, 90, 1, 1, 60, 60, 100]))
    assert 30 < most <= 100


def test_problems_that_differ_in_names_and_numbers_are_one_group_with_a_count_and_five_rows(tmp_path: Path) -> None:
    path = write_receipts(tmp_path, rows=12)
    rows: list[Any] = json.loads(path.read_text())
    for number in range(3, 12):
        rows[number]["image"] = f"images/none-{number}.png"
    rows[0]["conversations"][1]["value"] = ""
    path.write_text(json.dumps(rows))
    report = check_file(path)
    empty, missing = report.groups
    assert str(empty) == "row 1, conversations[1].value: is empty"
    assert (missing.count, missing.rows) == (9, [4, 5, 6, 7, 8])
    first = f"{tmp_path}/images/none-3.png: no such file"
    assert str(missing) == f"9 problems like this, in rows 4, 5, 6, 7, 8, …: image: {first}"
    assert (report.total, report.bad_rows, len(report.problems)) == (10, 10, 10)
    assert report.remedies == []


def test_a_folder_of_images_that_would_do_is_named_where_every_row_misses_its_image(tmp_path: Path) -> None:
    path = write_receipts(tmp_path / "data", rows=4)
    shutil.move(tmp_path / "data/images", tmp_path / "pictures/images")
    assert check_file(path).remedies == [
        f"no image is below {path.parent}; they are below {tmp_path / 'pictures'}: --images {tmp_path / 'pictures'}"
    ]
    shutil.move(tmp_path / "pictures/images", tmp_path / "flat")
    assert check_file(path, open_images=False).remedies == [
        f"no image is below {path.parent}; {tmp_path / 'flat'} has them without images/ in their names"
    ]
    shutil.rmtree(tmp_path / "flat")
    [remedy] = check_file(path).remedies
    assert remedy.endswith("name the folder that their names are relative to: --images FOLDER")


def test_without_opening_images_only_those_that_are_not_there_are_problems(tmp_path: Path) -> None:
    path = write_receipts(tmp_path, rows=4)
    (tmp_path / "images/train-0.png").write_bytes(b"no image")
    (tmp_path / "images/train-1.png").unlink()
    report = check_file(path, open_images=False)
    assert [(problem.row, problem.field) for problem in report.problems] == [(2, "image")]
    assert "4 images (not opened)" in report.summary()


def test_an_image_that_was_decoded_for_a_check_is_not_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = write_receipts(tmp_path, rows=4)
    first = check_file(path)
    opened: list[Any] = []
    monkeypatch.setattr("lmmcl.tasks.files.image_check.open_image", opened.append)
    assert check_file(path).to_dict() == first.to_dict()
    assert opened == []
    (tmp_path / "images/train-0.png").write_bytes((tmp_path / "images/train-1.png").read_bytes() + b" ")
    check_file(path)
    assert opened == [tmp_path / "images/train-0.png"]


def test_what_a_file_holds_is_told_in_a_few_lines(tmp_path: Path) -> None:
    path = write_receipts(tmp_path, rows=3)
    rows = json.loads(path.read_text())
    rows[0]["conversations"][1]["value"] = "one two three four"
    path.write_text(json.dumps([*rows, {"question": "1 + 1?", "answer": "2"}]))
    bar = "#" * 30
    report = check_file(
        path, count_tokens=lambda example: 10 * len(example.messages[-1].content.split()), max_length=20
    )
    assert report.details() == [
        "read as question: 1 rows",
        "images: 32 x 32 to 32 x 32 pixels, median 0.001 megapixels",
        "answers by words:",
        f"         1 {bar} 3",
        "         2                                0",
        "         3                                0",
        f"       4-5 {'#' * 10:30} 1",
        "tokens of 4 rows: median 10, 95 % up to 40, longest 40; max_length 20 cuts 1 (25 %)",
    ]


def test_a_check_for_a_model_counts_the_rows_that_max_length_would_cut(tmp_path: Path) -> None:
    path = write_receipts(tmp_path, rows=4)
    told = CliRunner().invoke(app, ["data", "check", str(path), "--model", "tiny-onevision", "--max-length", "3"])
    assert "max_length 3 cuts 4 (100 %)" in told.output
    alone = CliRunner().invoke(app, ["data", "check", str(path), "--max-length", "3"])
    assert isinstance(alone.exception, UserError)


def test_columns_and_question_may_be_named_on_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"q": "1 + 1?", "a": "2"}\n')
    told = CliRunner().invoke(app, ["data", "check", str(path)])
    assert (told.exit_code, "`columns: {question: q, answer: a}`" in told.output) == (2, True)
    assert CliRunner().invoke(app, ["data", "check", str(path), "--columns", "question=q,answer=a"]).exit_code == 0


@pytest.mark.parametrize("ids", [["2", None], [None, "1"], [None, None, 1], [2, None, None]])
def test_an_id_that_is_the_number_of_a_row_without_one_is_found_as_a_run_would_find_it(
    ids: list[str | int | None], tmp_path: Path
) -> None:
    rows = [{"question": "which?", "answer": "red"} | ({} if id is None else {"id": id}) for id in ids]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    with pytest.raises(UserError, match="is the id of row"):
        read_examples(tmp_path / "rows.json")
    (problem,) = check_file(tmp_path / "rows.json").problems
    assert problem.field == "id" and "is the id of row" in problem.message


def test_an_id_that_is_the_number_of_a_row_with_another_id_is_no_problem(tmp_path: Path) -> None:
    rows = [{"question": "which?", "answer": "red", "id": id} for id in ("2", "1", "0", "007", "9" * 5000, "²")]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    assert not check_file(tmp_path / "rows.json").problems
