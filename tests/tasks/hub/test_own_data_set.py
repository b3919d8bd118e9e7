"""A data set of the hub by id: known by its commit, fetched once as it is stored, read offline afterwards."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server.repositories import Repository, commit_of
from hub_server.server import HubServer
from own_data import PRICES
from PIL import Image

FIRST, SECOND = commit_of("first"), commit_of("second")
ANSWERS = ["007", "1e5", "true", "four"]

SCRIPT = """
import json, sys
from typer.testing import CliRunner
from lmmcl.cli import app
from lmmcl.config.sweep import load_sweep
for command in json.loads(sys.argv[1]):
    if command == ["rows"]:
        skill = load_sweep("sweep.yaml").trials[0].skills[0]
        rows = [[each.target, each.references, len(each.open_images()), each.metadata] for each in skill.load()]
        print(json.dumps({"exit": 0, "rows": rows, "identity": skill.identity(), "asked": skill.benchmark.load()[0].target}))
        continue
    done = CliRunner().invoke(app, command)
    told = str(done.exception) if done.exception and not isinstance(done.exception, SystemExit) else ""
    print(json.dumps({"exit": done.exit_code, "output": done.output + told}))
"""


def png(colour: tuple[int, int, int]) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(stream, "PNG")
    return stream.getvalue()


def write_json_repository(folder: Path, answers: list[Any]) -> None:
    """JSON lines of mixed types, which `datasets` would change, with images in the repository."""
    (folder / "data").mkdir(parents=True)
    for part in ("train", "test"):
        rows = []
        for number, (answer, colour) in enumerate(zip(answers, PRICES.values(), strict=True)):
            name = f"images/{part}-{number}.png"
            (folder / "images").mkdir(exist_ok=True)
            (folder / name).write_bytes(png(colour))
            rows.append({"image": name, "question": f"{part} {number}?", "answer": answer, "page": number})
        rows.append({"image": name, "question": "?", "answer": None})
        (folder / "data" / f"{part}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train.jsonl\n"
        "  - split: test\n    path: data/test.jsonl\n---\n"
    )


def write_parquet_repository(folder: Path) -> None:
    import datasets

    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["crow", "jay"]))
    (folder / "data").mkdir(parents=True)
    for part in ("train", "test"):
        rows = [{"image": {"bytes": png((n, 0, len(part))), "path": None}, "label": n % 2} for n in range(4)]
        path = folder / "data" / f"{part}-00000-of-00001.parquet"
        datasets.Dataset.from_list(rows, features=features).to_parquet(path)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    write_json_repository(tmp_path / "first", ANSWERS)
    write_json_repository(tmp_path / "second", [["five", "5"], *ANSWERS[1:]])
    write_parquet_repository(tmp_path / "birds")
    vqa = Repository("own/vqa", {FIRST: tmp_path / "first", SECOND: tmp_path / "second"}, "dataset", {"main": FIRST})
    with HubServer([vqa, Repository("own/birds", {SECOND: tmp_path / "birds"}, "dataset")]) as server:
        yield server


def sweep(folder: Path, train: dict[str, Any], **skill: Any) -> None:
    data = {
        "name": "own",
        "orders": {"main": ["bills"]},
        "skills": {"bills": {"train": train, "test": {**train, "split": "test"}, "metric": "exact_match", **skill}},
        "training": {"learning_rate": 1e-3, "epochs": 1, "global_batch_size": 4, "precision": "fp32"},
        "grids": [{"model": ["tiny-onevision"], "recipe": ["sa_proj"]}],
    }
    (folder / "sweep.yaml").write_text(json.dumps(data))


def ask(folder: Path, environment: dict[str, str], *commands: list[str]) -> list[dict[str, Any]]:
    """What each command gave, all in one process."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(commands)],
        cwd=folder,
        env={**os.environ, **environment, "LMMCL_DATA": str(folder / "data"), "COLUMNS": "300"},
        capture_output=True,
        text=True,
    )
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(found) == len(commands), done.stderr
    return found


PLAN, PREPARE, ROWS = ["plan", "sweep.yaml"], ["data", "prepare", "sweep.yaml"], ["rows"]
RUN = ["run", "sweep.yaml", "--inline", "--mlflow", "off"]


def test_a_data_set_is_fetched_once_and_read_offline_with_the_texts_that_it_holds(
    hub: HubServer, tmp_path: Path
) -> None:
    environment = hub.environment(tmp_path)
    sweep(tmp_path, {"hub": "own/vqa", "split": "train"})
    planned, prepared, again, rows = ask(tmp_path, environment, PLAN, PREPARE, PREPARE, ROWS)
    assert f"own/vqa: revision 'main' is commit {FIRST} here; `revision: {FIRST}` pins it" in planned["output"]
    assert "own/vqa (train): 4 rows to" in prepared["output"]
    assert "1 left out: answer: is null" in prepared["output"]
    assert "own/vqa (train): 4 rows, prepared already" in again["output"]
    assert [row[0] for row in rows["rows"]] == ANSWERS
    assert rows["rows"][0][2:] == [1, {"page": "0"}]
    assert rows["identity"]["data"]["revision"] == FIRST

    hub.repositories[0].branches["main"] = SECOND  # the branch moves; the sweep does not
    hub.stop()
    assert ask(tmp_path, {**environment, "HF_HUB_OFFLINE": "1"}, ROWS) == [rows]


def test_a_revision_may_be_a_commit_and_another_commit_is_another_key(hub: HubServer, tmp_path: Path) -> None:
    environment = hub.environment(tmp_path)
    sweep(tmp_path, {"hub": "own/vqa", "split": "train", "revision": SECOND})
    prepared, rows = ask(tmp_path, environment, PREPARE, ROWS)
    assert prepared["exit"] == 0
    assert rows["rows"][0][:2] == ["five", ["five", "5"]]
    assert rows["identity"]["data"]["revision"] == SECOND


def test_parquet_keeps_the_bytes_of_its_images_and_the_names_of_its_classes(hub: HubServer, tmp_path: Path) -> None:
    sweep(tmp_path, {"hub": "own/birds", "split": "train"}, question="Which bird is it?")
    prepared, rows = ask(tmp_path, hub.environment(tmp_path), PREPARE, ROWS)
    assert prepared["exit"] == 0, prepared["output"]
    assert [row[0] for row in rows["rows"]] == ["crow", "jay", "crow", "jay"]
    assert rows["identity"]["data"]["question"] == "Which bird is it?"
    [file] = (tmp_path / "data/hub/own--birds").glob("train-*.parquet")
    assert png((0, 0, 5)) in file.read_bytes()


@pytest.mark.slow
def test_a_run_says_what_to_fetch_and_needs_no_network_afterwards(hub: HubServer, tmp_path: Path) -> None:
    environment = hub.environment(tmp_path)
    sweep(tmp_path, {"hub": "own/vqa", "split": "train"})
    refused, _ = ask(tmp_path, environment, RUN, PREPARE)
    assert refused["exit"] == 1 and "fetch it where there is a network with `lmmcl data prepare" in refused["output"]
    hub.stop()
    [done] = ask(tmp_path, {**environment, "HF_HUB_OFFLINE": "1"}, RUN)
    assert done["exit"] == 0, done["output"]


@pytest.mark.slow
def test_what_the_hub_does_not_have_is_said_in_one_message(hub: HubServer, tmp_path: Path) -> None:
    environment = hub.environment(tmp_path)
    for train, message in (
        ({"hub": "own/nothing", "split": "train"}, "data set own/nothing at revision main"),
        ({"hub": "own/vqa", "split": "trian"}, "unknown split 'trian'; did you mean 'train'"),
        ({"hub": "own/vqa", "split": "train", "columns": {"question": "q", "answer": "answer"}}, "has no column 'q'"),
    ):
        sweep(tmp_path, train)
        [found] = ask(tmp_path, environment, PREPARE)
        assert found["exit"] == 1 and message in found["output"], found["output"]
