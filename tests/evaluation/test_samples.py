"""The file of answered questions comes back as it was written."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import pytest

from lmmcl.errors import UserError
from lmmcl.evaluation.samples import Sample, read_samples, write_samples

SAMPLES = [
    Sample("1", "What\nis it?", ("a", "b"), "line\u2028separator \x85 “quoted” \x1c", 0.25, {"kind": "x", "n": 3}),
    Sample("2", "", ("é",), "", 1.0),
]


def test_samples_survive_the_file_whatever_characters_a_model_says(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    write_samples(path, SAMPLES)
    assert read_samples(path) == SAMPLES
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2  # one line each for readers of every kind


def test_metadata_that_json_has_no_word_for_is_written_as_text(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    write_samples(path, [Sample("1", "", ("a",), "", 0.0, {"file": Path("a/b.png")})])
    assert read_samples(path)[0].metadata == {"file": "a/b.png"}


@pytest.mark.parametrize("line", ["{", "[]", '{"id": "3"}', '{"id": "3", "references": [], "surprise": 1}'])
def test_a_line_that_is_no_sample_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "samples.jsonl"
    write_samples(path, SAMPLES)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(UserError, match=r"samples\.jsonl: line 3: is not a valid sample"):
        read_samples(path)


@dataclass(frozen=True)
class _Box:
    left: int
    inner: tuple[int, ...] = (1, 2)


def test_a_line_is_what_the_dataclass_says_of_itself(tmp_path: Path) -> None:
    metadata = {"at": date(2026, 1, 2), "box": _Box(3), "nested": {"boxes": [_Box(4)], "share": 0.1}, "none": None}
    samples = [Sample("a", "what?", ("é", "x"), "x\u2028", 1.0, metadata), Sample("b", "", (), "", 0.5)]
    write_samples(tmp_path / "s.jsonl", samples)
    lines = (tmp_path / "s.jsonl").read_text().splitlines()
    assert lines == [json.dumps(asdict(sample), default=str) for sample in samples]
