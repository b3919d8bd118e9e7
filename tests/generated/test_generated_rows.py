"""Changed rows of the layouts that data come in: read into examples that can be taught and asked, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from generated.mutations import SIZES, Tally, explore, mutated, seen_values
from PIL import Image
from tasks.files.test_formats_fuzz import assert_sound

from lmmcl.config.sweep import build_sweep
from lmmcl.errors import UserError
from lmmcl.tasks.files.check import check_file
from lmmcl.tasks.files.formats import read_examples

ROWS: list[dict[str, Any]] = [
    {"question": "which colour?", "answer": "red", "image": "1.png"},
    {"question": "which?", "answers": ["red", "Red"], "images": ["1.png", "1.png"], "shop": "corner"},
    {"id": 3, "instruction": "Name it.", "input": "the bird", "output": "a wren"},
    {"image": "1.png", "conversations": [{"from": "human", "value": "<image>\nwhich?"}, {"from": "gpt", "value": "red"}]},
    {"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "which?"}, {"role": "assistant", "content": "x"}]},
    {
        "messages": [
            {"role": "user", "content": [{"type": "image", "path": "1.png"}, {"type": "text", "text": "which?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "blue"}]},
        ]
    },
    {"question": "which?", "choices": ["red", "blue"], "answer": "A"},
]  # fmt: skip
METRICS = ("exact_match", "anls", "contains", "accuracy")


@pytest.mark.parametrize("examples", SIZES)
def test_changed_rows_can_be_taught_and_asked_or_are_refused(
    examples: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (4, 4), "red").save(tmp_path / "1.png")
    path, tally = tmp_path / "rows.json", Tally()
    sweep = yaml.safe_load(
        "{name: small, orders: {main: [mine]}, skills: {mine: {train: rows.json, test: 0.5, metric: exact_match}},"
        " grids: [{model: [tiny-onevision], recipe: [llm]}]}"
    )

    def read(rows: list[Any]) -> bool:
        path.write_text(json.dumps(rows), encoding="utf-8")
        report = check_file(path)
        json.dumps(report.to_dict())
        "\n".join(report.lines()).encode()
        try:
            parsed = read_examples(path)
        except UserError as error:
            assert report.total, f"refused, but the check found nothing: {error}"
            return False
        for example in parsed:
            assert_sound(example)
        try:
            (trial,) = build_sweep(sweep, folder=tmp_path).trials
        except UserError as error:
            str(error).encode()  # such as too few rows to hold some back
        else:
            assert trial.key
        return True

    rows = mutated(ROWS, seen_values(ROWS), most=2)
    explore(read, rows.map(lambda row: [row, ROWS[0]]), examples, tally)
    tally.check("data rows", capsys)
