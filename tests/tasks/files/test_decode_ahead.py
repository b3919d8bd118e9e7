"""Images are decoded once before the stage that shows them, beside what loads the model; one that cannot be is refused by name."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from own_data import write_receipts

from lmmcl.errors import UserError
from lmmcl.tasks import get_skill
from lmmcl.tasks.files.decode_ahead import images_decoded, shown_by
from lmmcl.tasks.files.local_files import LocalSkill, local_skill


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is decoded."""
    from lmmcl.tasks.files import image_check

    seen: list[Any] = []
    decode = image_check.open_image
    monkeypatch.setattr(image_check, "open_image", lambda image: (seen.append(image), decode(image))[1])
    return seen


def skill(folder: Path, break_one: bool = False) -> LocalSkill:
    write_receipts(folder, rows=4)
    write_receipts(folder, rows=2, name="test.json")
    image = folder / "images/train-2.png"
    if break_one:  # its header is whole
        image.write_bytes(image.read_bytes()[:70])
    return local_skill("bills", train=folder / "train.json", test=folder / "test.json", metric="anls")


def test_each_image_is_decoded_once_and_never_again(tmp_path: Path, opened: list[Any]) -> None:
    own = skill(tmp_path)
    for _ in range(2):
        with images_decoded(list(shown_by("skill", own, None))):
            pass
        assert len(opened) == 4
    with images_decoded(list(shown_by("skill", own, 2))):
        pass
    assert len(opened) == 4


def test_one_that_cannot_be_shown_is_refused_when_the_body_has_ended(tmp_path: Path) -> None:
    own = skill(tmp_path, break_one=True)
    done = threading.Event()
    broken = pytest.raises(UserError, match=r"skill bills: .*train-2\.png: is not a readable image")
    with broken, images_decoded(list(shown_by("skill", own, None))):
        done.set()
    assert done.is_set()


def test_an_error_of_the_body_comes_first(tmp_path: Path) -> None:
    own = skill(tmp_path, break_one=True)
    with pytest.raises(KeyError), images_decoded(list(shown_by("skill", own, None))):
        raise KeyError("body")


def test_images_that_code_draws_need_none_of_it() -> None:
    assert list(shown_by("skill", get_skill("birds"), None)) == []


def test_a_stage_and_an_evaluation_refuse_a_broken_image_before_they_begin(tmp_path: Path) -> None:
    import json

    from typer.testing import CliRunner

    from lmmcl.cli import app

    skill(tmp_path, break_one=True)
    data = {
        "name": "own",
        "orders": {"main": ["bills"]},
        "skills": {"bills": {"train": "train.json", "test": "test.json", "metric": "anls"}},
        "training": {"learning_rate": 1e-3, "epochs": 1, "global_batch_size": 4, "precision": "fp32"},
        "grids": [{"model": ["tiny-onevision"], "recipe": ["sa_proj"]}],
    }
    (tmp_path / "sweep.yaml").write_text(json.dumps(data))
    command = ["run", str(tmp_path / "sweep.yaml"), "--store", str(tmp_path / "store"), "--inline", "--mlflow", "off"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code != 0
    assert "skill bills: " in done.output and "train-2.png: is not a readable image" in done.output
    (tmp_path / "images/test-1.png").write_bytes((tmp_path / "images/test-1.png").read_bytes()[:70])
    done = CliRunner().invoke(app, [*command[:2], *command[2:3], str(tmp_path / "other"), *command[4:]])
    assert "benchmark bills: " in done.output and "test-1.png: is not a readable image" in done.output
