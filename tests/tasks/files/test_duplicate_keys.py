"""A key given twice in a row of data is reported with its row: JSON readers silently keep the last."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmmcl.tasks.files.check import check_file

GOOD = '{"conversations": [{"from": "human", "value": "a?"}, {"from": "gpt", "value": "b"}]}'
TWICE = {
    "in the row": '{"id": "1", "id": "2", "conversations": [{"from": "human", "value": "a?"}, {"from": "gpt", "value": "b"}]}',
    "in a turn": '{"conversations": [{"from": "human", "value": "a?", "value": "c?"}, {"from": "gpt", "value": "b"}]}',
}


@pytest.mark.parametrize("kind", TWICE)
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_a_key_given_twice_is_told_with_its_row(kind: str, suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"rows{suffix}"
    rows = [GOOD, TWICE[kind], GOOD]
    file.write_text("[" + ", ".join(rows) + "]" if suffix == ".json" else "\n".join(rows))
    (problem,) = check_file(file, None).problems
    assert f"the key '{'id' if kind == 'in the row' else 'value'}' is given twice" in str(problem)
    assert "2" in str(problem).split(":")[0] or "row 2" in str(problem)


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_json_nested_without_end_is_told(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"rows{suffix}"
    file.write_text("[" * 100_000)
    assert "is not JSON" in str(check_file(file, None).problems[0])
