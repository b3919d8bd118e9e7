"""Encoded questions that one process leaves on disk are another's, exactly, or are encoded again."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lmmcl.errors import UserError
from lmmcl.evaluation import question_cache as module
from lmmcl.evaluation.encodings import EncodingCache, known_questions, windows
from lmmcl.evaluation.question_cache import QuestionCache, question_cache
from lmmcl.models import get_model
from lmmcl.tasks.examples import Example, ask
from lmmcl.tasks.skills import Benchmark

PROCESSOR = get_model("tiny-onevision").load_processor()
MB = 1_000_000


class Counted:
    """A benchmark that counts how often its questions are loaded."""

    def __init__(self, rows: int = 5, **metadata: Any) -> None:
        self.loads, self.rows, self.metadata = 0, rows, metadata
        self.benchmark = Benchmark("counted", 1, "exact_match", load=self.load)

    def load(self) -> list[Example]:
        self.loads += 1
        return [
            ask(f"q{i}", "What is it?", "red", Image.new("RGB", (32, 32), (i, 0, 0)), metadata=self.metadata)
            for i in range(self.rows)
        ]


def rows(counted: Counted, disk: QuestionCache | None, limit: int | None = None) -> list:
    """What a new process is given."""
    found = windows(PROCESSOR, counted.benchmark, limit, 2, EncodingCache(MB), disk=disk)
    return [row for window in found for row in window]


def assert_same(one: list, other: list) -> None:
    assert [example for example, _ in one] == [example for example, _ in other]
    for (_, first), (_, second) in zip(one, other, strict=True):
        assert list(first) == list(second), "in the same order, too"
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert all(first[name].dtype == second[name].dtype for name in first)


def known(counted: Counted, disk: QuestionCache | None, cache: EncodingCache | None = None, limit: int | None = None):
    return known_questions(PROCESSOR, counted.benchmark, limit, cache or EncodingCache(MB), disk)


def test_questions_that_are_encoded_are_known_without_loading_them(tmp_path: Path) -> None:
    counted, disk = Counted(kind="colour"), QuestionCache(tmp_path, 10 * MB)
    assert known(counted, disk) is None and known(counted, None) is None and counted.loads == 0
    asked = [example for example, _ in rows(counted, disk)]
    assert known(counted, disk) == asked and asked[1].references == ("red",) and counted.loads == 1
    assert known(counted, disk, limit=3) is None, "other questions"
    here = EncodingCache(MB)
    list(windows(PROCESSOR, counted.benchmark, None, 2, here))
    assert known(counted, None, here) == asked, "in this process's memory"


def test_questions_of_a_damaged_file_are_not_known(tmp_path: Path) -> None:
    counted, disk = Counted(), QuestionCache(tmp_path, 10 * MB)
    rows(counted, disk)
    (path,) = tmp_path.glob("*.questions")
    path.write_bytes(path.read_bytes()[:-1])
    assert known(counted, disk) is None
    assert not list(tmp_path.iterdir())


def test_another_process_reads_what_the_first_has_encoded(tmp_path: Path) -> None:
    counted, disk = Counted(kind="colour", level=2), QuestionCache(tmp_path, 10 * MB)
    first = rows(counted, disk)
    assert_same(rows(counted, disk), first)
    assert counted.loads == 1
    assert_same(rows(counted, None), first)
    assert counted.loads == 2
    assert len(rows(counted, disk, limit=3)) == 3, "another limit, other rows"
    assert counted.loads == 3


@pytest.mark.parametrize(
    "damage",
    [lambda content: content[:-1], lambda content: content[:-1] + b"?", lambda content: b""],
    ids=["cut", "changed", "empty"],
)
def test_a_damaged_file_is_encoded_again(damage: Any, tmp_path: Path) -> None:
    counted, disk = Counted(), QuestionCache(tmp_path, 10 * MB)
    first = rows(counted, disk)
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert_same(rows(counted, disk), first)
    assert counted.loads == 2
    assert_same(rows(counted, disk), first)
    assert counted.loads == 2, "it was written again"


def test_other_code_or_another_key_finds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted, disk = Counted(), QuestionCache(tmp_path, 10 * MB)
    rows(counted, disk)
    monkeypatch.setattr(module, "_code", lambda: "another version")
    rows(counted, disk)
    assert counted.loads == 2
    assert len(list(tmp_path.iterdir())) == 2


def test_the_state_of_the_source_is_part_of_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "draw.py"
    source.write_text("RED = 1")
    monkeypatch.setattr(module, "_sources", lambda root: [source])
    monkeypatch.setattr(module, "PACKAGE", tmp_path)
    before = module._code.__wrapped__()
    source.write_text("RED = 255")
    assert module._code.__wrapped__() != before


def test_the_folder_is_bounded_and_the_least_recently_used_go_first(tmp_path: Path) -> None:
    disk = QuestionCache(tmp_path, 10 * MB)
    encoded = rows(Counted(), disk)
    (path,) = tmp_path.iterdir()
    small = QuestionCache(tmp_path, int(5.5 * path.stat().st_size))
    for number in range(5):
        small.put(f"key {number}", encoded, 1)
    assert small.get("key 0") is not None, "read just now"
    for number in range(5, 8):
        small.put(f"key {number}", encoded, 1)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= small.limit
    assert small.get("key 7") is not None
    assert small.get("key 1") is None
    small.put("large", encoded, small.limit // 2)
    assert small.get("large") is None, "it would displace the others"


def test_what_json_cannot_say_is_not_kept(tmp_path: Path) -> None:
    for metadata in ({"box": (1, 2)}, {"picture": Image.new("RGB", (1, 1))}, {"names": {1: "one"}}):
        disk = QuestionCache(tmp_path, 10 * MB)
        assert_same(rows(Counted(**metadata), disk), rows(Counted(**metadata), None))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_keeps_nobody_from_asking(tmp_path: Path) -> None:
    taken = tmp_path / "questions"
    taken.write_text("a file")
    assert len(rows(Counted(), QuestionCache(taken, 10 * MB))) == 5


def test_several_at_once_write_and_read_whole_files(tmp_path: Path) -> None:
    disk, results = QuestionCache(tmp_path, 10 * MB), []
    threads = [threading.Thread(target=lambda: results.append(rows(Counted(), disk))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        assert_same(result, results[0])
    assert [path.suffix for path in tmp_path.iterdir()] == [".questions"]


def test_the_limit_is_set_by_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LMMCL_QUESTION_CACHE_MB", "20")
    disk = question_cache()
    assert disk is not None
    assert (disk.folder, disk.limit) == (tmp_path / "lmmcl" / "questions", 20 * MB)
    monkeypatch.setenv("LMMCL_QUESTION_CACHE_MB", "0")
    assert question_cache() is None
    monkeypatch.setenv("LMMCL_QUESTION_CACHE_MB", "much")
    with pytest.raises(UserError, match="LMMCL_QUESTION_CACHE_MB: a number of megabytes is expected, not 'much'"):
        question_cache()
