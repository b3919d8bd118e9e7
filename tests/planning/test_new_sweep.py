"""`lmmcl init`: a sweep file for a model and a data file that runs as it is written, or one message and no file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from models.small_families import FAMILIES, save
from PIL import Image
from typer.testing import CliRunner

from lmmcl.cli import app
from lmmcl.config.sweep import load_sweep
from lmmcl.planning.new_sweep import guess_metric
from lmmcl.tasks.examples import ask
from lmmcl.yaml_text import parse_yaml

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes rows, each with a picture of its own, and makes their folder the working one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()

    def rows(answers: list[str], name: str = "rows.jsonl", start: int = 0, **names: str) -> Path:
        lines = []
        for number, answer in enumerate(answers, start=start):
            Image.new("RGB", (40, 30), (number * 7 % 256, 0, 90)).save(tmp_path / "pictures" / f"{number}.png")
            row = {"image": f"{number}.png", "question": "how many circles are there ?", "answer": answer}
            lines.append(json.dumps({names.get(key, key): value for key, value in row.items()}))
        (tmp_path / name).write_text("\n".join(lines))
        return Path(name)

    return rows


def init(*words: str) -> Any:
    return CliRunner().invoke(app, ["init", *words])


def test_the_file_that_is_written_runs_as_it_is(write: Write) -> None:
    write([str(number % 9 + 1) for number in range(30)], image="photo", question="q", answer="a")
    words = ["--columns", "image=photo,question=q,answer=a", "--images", "pictures", "--recipe", "sa_proj"]
    done = init("tiny-onevision", "rows.jsonl", *words)
    assert done.exit_code == 0, done.output
    assert "30 rows (0 without image)" in done.output and "no problems" in done.output
    assert "wrote rows.yaml; next: lmmcl run rows.yaml" in done.output
    written = parse_yaml(Path("rows.yaml").read_text())
    assert written["skills"]["rows"] == {
        "train": "rows.jsonl",
        "images": "pictures",
        "columns": {"image": "photo", "question": "q", "answer": "a"},
        "test": {"share": 0.1, "by": "picture"},
        "metric": "integer",
        "max_new_tokens": 16,
    }
    assert len(load_sweep(Path("rows.yaml")).trials) == 2
    more = ["--set", "training.max_steps=1", "--set", "grids[0].learning_rate=[1.0e-3]", "--inline", "--mlflow", "off"]
    ran = CliRunner().invoke(app, ["run", "rows.yaml", *more])
    assert ran.exit_code == 0, ran.output


def test_every_setting_that_may_puzzle_has_a_comment(write: Write) -> None:
    write(["red", "dark blue"] * 6)
    assert init("tiny-onevision", "rows.jsonl", "--images", "pictures").exit_code == 0
    lines = Path("rows.yaml").read_text().splitlines()
    commented = [line for line in lines if "  # " in line]
    assert len(commented) >= 10
    assert all(len(line) <= 120 for line in lines)
    assert {line.index("  # ") for line in commented if len(line.split("  # ")[0].rstrip()) < 38} == {38}


@pytest.mark.parametrize(
    ("answers", "metric"),
    [
        (["A", "B", "D"], "letter"),
        (["yes", "No"], "yes_no"),
        (["10:05", "9:30"], "clock"),
        (["3", "12"], "integer"),
        (["3", "about three"], "exact_match"),
        (["a total of twelve dollars and nine cents"], "anls"),
        (["a man in a red coat stands beside a brown horse on a hill and looks at the sea with a small dog"], "cider"),
    ],
)
def test_the_metric_follows_from_the_answers(answers: list[str], metric: str) -> None:
    assert guess_metric([ask(str(i), "what ?", answer) for i, answer in enumerate(answers)])[0] == metric


def test_several_accepted_answers_are_scored_as_vqa() -> None:
    from dataclasses import replace

    example = replace(ask("a", "what ?", "red"), answers=("red", "crimson"))
    assert guess_metric([example, example, ask("b", "what ?", "blue")])[0] == "vqa_soft"


def test_paths_are_those_from_the_folder_of_the_sweep(write: Write, tmp_path: Path) -> None:
    write(["1", "2"] * 5)
    write(["1", "2"] * 3, "test.jsonl", start=50)
    save(tmp_path / "my-llava", *FAMILIES["llava"]())
    (tmp_path / "sweeps").mkdir()
    words = ["--images", "pictures", "--test", "test.jsonl", "--to", "sweeps/mine.yaml", "--name", "mine"]
    done = init("./my-llava", "rows.jsonl", *words)
    assert done.exit_code == 0, done.output
    written = parse_yaml(Path("sweeps/mine.yaml").read_text())
    assert written["skills"]["mine"]["train"] == "../rows.jsonl"
    assert written["skills"]["mine"]["test"] == "../test.jsonl"
    assert written["grids"][0]["model"] == ["../my-llava"]


def test_a_large_model_gets_low_rates_and_bf16_without_a_download(write: Write) -> None:
    write(["1", "2"] * 5)
    done = init("Qwen/Qwen2.5-VL-3B-Instruct", "rows.jsonl", "--images", "pictures")
    assert done.exit_code == 0, done.output
    written = parse_yaml(Path("rows.yaml").read_text())
    assert written["training"]["precision"] == "bf16"
    assert written["grids"][0]["learning_rate"] == [1.0e-5, 5.0e-6]
    (first, *_) = load_sweep(Path("rows.yaml")).trials
    assert first.model.name == "qwen2.5-vl-3b"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tiny-onevison", "rows.jsonl"], "did you mean 'tiny-onevision'"),
        (["tiny-onevision", "rows.jsnl"], "rows.jsnl"),
        (["tiny-onevision", "rows.jsonl"], "no such file"),
        (["tiny-onevision", "rows.jsonl", "--images", "pictures", "--metric", "exact"], "did you mean 'exact_match'"),
        (
            ["tiny-onevision", "rows.jsonl", "--images", "pictures", "--test", "1.5"],
            "--test: is a file, or a share between 0 and 1",
        ),
        (["tiny-onevision", "rows.jsonl", "--images", "pictures", "--recipe", "sa_prj"], "did you mean 'sa_proj'"),
        (["tiny-onevision", "rows.jsonl", "--images", "pictures", "--held-out", "color"], "did you mean 'colour'"),
        (["tiny-onevision", "odd.jsonl"], "unknown layout: its columns are one, two"),
    ],
)
def test_what_is_wrong_is_one_message_and_no_file(write: Write, words: list[str], said: str) -> None:
    write(["1", "2"] * 5)
    Path("odd.jsonl").write_text('{"one": "a", "two": "b"}\n')
    done = init(*words)
    assert done.exit_code != 0
    assert said in f"{done.output}{done.exception}"
    assert not list(Path().glob("*.yaml"))


def test_a_file_that_exists_is_replaced_only_by_force(write: Write) -> None:
    write(["1", "2"] * 5)
    Path("rows.yaml").write_text("mine")
    words = ["tiny-onevision", "rows.jsonl", "--images", "pictures"]
    assert "exists already" in str(init(*words).exception)
    assert Path("rows.yaml").read_text() == "mine"
    assert init(*words, "--force").exit_code == 0
    assert Path("rows.yaml").read_text() != "mine"


@pytest.mark.parametrize("to", ["", ".", "pictures"])
def test_a_folder_is_no_place_for_the_file(to: str, write: Write) -> None:
    write(["1", "2"] * 5)
    Path("pictures").mkdir(exist_ok=True)
    done = init("tiny-onevision", "rows.jsonl", "--to", to, "--force")
    assert done.exit_code != 0 and "is a folder; name a file in it" in str(done.exception)
