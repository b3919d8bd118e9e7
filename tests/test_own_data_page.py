"""What docs/own_data.md tells a new user works as it stands there: check, run, report, for four kinds of data."""

from __future__ import annotations

import csv
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from own_data import PRICES, QUESTION, write_receipt
from test_docs import REPOSITORY, sweeps_in
from typer.testing import CliRunner

from lmmcl.cli import app

SWEEPS = {yaml.safe_load(text)["name"]: text for text in sweeps_in(REPOSITORY / "docs" / "own_data.md")}


def pictures(folder: Path, count: int) -> list[tuple[str, str]]:
    """(name, price) of pictures that are drawn into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(str(folder))
    drawn = [(f"{number}.png", list(PRICES)[number % 4]) for number in range(count)]
    for name, price in drawn:
        write_receipt(folder / name, PRICES[price], draw)
    return drawn


def write_vqa(folder: Path) -> list[str]:
    """Two shards and a test file, as `to_parquet` of `datasets` writes them: images with their bytes."""
    import datasets

    features = datasets.Features(
        image=datasets.Image(),
        question=datasets.Value("string"),
        answers=datasets.List(datasets.Value("string")),
    )
    (folder / "vqa").mkdir()
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test"):
        rows = [
            {
                "image": {"bytes": (folder / name / file).read_bytes(), "path": None},
                "question": QUESTION,
                "answers": [price] * 10,
            }
            for file, price in pictures(folder / name, 8)
        ]
        datasets.Dataset.from_list(rows, features=features).to_parquet(folder / "vqa" / f"{name}.parquet")
    return ["vqa/train-00000-of-00002.parquet", "vqa/test.parquet"]


def write_swift(folder: Path) -> list[str]:
    rows = [
        {"query": f"<image>{QUESTION} {turn}", "response": price, "images": [name]}
        for name, price in pictures(folder / "pictures", 10)
        for turn in ("really?", "surely?")
    ]
    (folder / "receipts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return ["receipts.jsonl", "--images", "pictures"]


def write_table(folder: Path) -> list[str]:
    with (folder / "prices.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["photo", "q", "price", "shop"])
        writer.writerows([name, QUESTION, price, "corner"] for name, price in pictures(folder / "photos", 10))
    return ["prices.csv", "--images", "photos", "--columns", "image=photo,question=q,answer=price"]


def write_birds(folder: Path) -> list[str]:
    for part in ("train", "test"):
        for name, price in pictures(folder / "drawn" / part, 8):
            (folder / "birds" / part / price).mkdir(parents=True, exist_ok=True)
            shutil.move(folder / "drawn" / part / name, folder / "birds" / part / price / name)
    return ["birds/train", "--question", "Which bird is it?"]


NEWCOMERS: dict[str, Callable[[Path], list[str]]] = {
    "vqa": write_vqa,
    "swift": write_swift,
    "table": write_table,
    "garden": write_birds,
}


def test_the_page_has_a_sweep_of_at_most_twelve_lines_for_each_kind() -> None:
    assert SWEEPS.keys() == NEWCOMERS.keys()
    assert all(len(text.splitlines()) <= 12 for text in SWEEPS.values())


@pytest.mark.parametrize("name", NEWCOMERS)
def test_a_new_users_data_come_to_a_report(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    checked = NEWCOMERS[name](tmp_path)
    Path("mine.yaml").write_text(SWEEPS[name], encoding="utf-8")
    for command in (["data", "check", *checked], ["run", "mine.yaml", "--inline", "--mlflow", "off"]):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
    assert "4 steps computed" in done.output
    [page] = Path().rglob("index.html")
    assert name in page.read_text(encoding="utf-8")
