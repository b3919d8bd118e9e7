"""A stage resumes from its newest valid checkpoint; one that is truncated, changed or incomplete is skipped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.training.distributed.workers import Workers
from lmmcl.training.recovery.checksums import write_checksums
from lmmcl.training.recovery.resume import resume_point

FILES = {"trained.safetensors": "weights", "optimizer.pt": "moments", "trainer_state.json": '{"global_step": 1}'}


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """An older checkpoint and a newer one."""
    folders = tmp_path / "checkpoint-9", tmp_path / "checkpoint-10"
    for folder in folders:
        folder.mkdir()
        for name, text in FILES.items():
            (folder / name).write_text(text)
        write_checksums(folder)
    return folders


def newest(runs: Path) -> Path | None:
    with resume_point(Workers(), runs, TrainingPlacement()) as folder:
        return folder


def test_the_newest_is_taken(two: tuple[Path, Path], tmp_path: Path) -> None:
    assert newest(tmp_path) == two[1]
    assert newest(tmp_path / "nowhere") is None


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("text", ["", "moment", "momentS", None])
def test_one_with_a_file_that_was_cut_changed_or_lost_is_passed_over(
    name: str, text: str | None, two: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (two[1] / name).unlink()
    if text is not None:
        (two[1] / name).write_text(text)
    assert newest(tmp_path) == two[0]
    assert name in caplog.text


def test_one_whose_checksums_are_cut_or_was_never_written_is_passed_over(
    two: tuple[Path, Path], tmp_path: Path
) -> None:
    (two[1] / "seal-0.json").write_text('{"optimizer.pt": {"by')
    assert newest(tmp_path) == two[0]
    shutil.rmtree(two[0])
    (two[1] / "seal-0.json").unlink()
    assert newest(tmp_path) is None


def test_the_parts_of_a_groups_workers_are_held_each_to_its_own_checksums(
    two: tuple[Path, Path], tmp_path: Path
) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "rng_state_1.pth").write_text("numbers")
    write_checksums(other, 1)
    shutil.copytree(other, two[1], dirs_exist_ok=True)  # as Ray Train puts them into one folder
    assert newest(tmp_path) == two[1]
    assert "rng_state_1.pth" in json.loads((two[1] / "seal-1.json").read_text())
    (two[1] / "rng_state_1.pth").write_text("number")
    assert newest(tmp_path) == two[0]


def group_checkpoint(runs: Path, name: str, update: int, *files: str) -> Path:
    """What Ray Train kept of a worker group."""
    folder = runs / f"checkpoint_2026-11-30_{name}"
    folder.mkdir()
    for file in files:
        (folder / file).write_text(file)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": update}))
    write_checksums(folder)
    return folder


def test_a_process_of_its_own_resumes_what_a_worker_group_saved_after_it(
    two: tuple[Path, Path], tmp_path: Path
) -> None:
    group = group_checkpoint(tmp_path, "12", 12, "optimizer.pt", "trained.safetensors")
    group_checkpoint(
        tmp_path, "15", 15, "trained.safetensors"
    )  # parts of a divided model, whose optimizer is elsewhere
    ended = tmp_path / "checkpoint_2026-11-30_18"  # what a group handed over at its end
    ended.mkdir()
    with resume_point(Workers(), tmp_path, TrainingPlacement()) as folder:
        assert folder is not None and folder.name == "checkpoint-12" and folder.resolve() == group.resolve()
    (group / "optimizer.pt").write_text("other")
    assert newest(tmp_path) == two[1]


@pytest.mark.parametrize("state", ["", "{}", "[]", '{"global_step": null}'])
def test_a_checkpoint_of_a_worker_group_whose_update_cannot_be_read_is_passed_over(
    state: str, two: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    group = group_checkpoint(tmp_path, "12", 12, "optimizer.pt", "trained.safetensors")
    (group / "trainer_state.json").write_text(state)
    assert newest(tmp_path) == two[1]
    assert "its trainer_state.json cannot be read" in caplog.text
