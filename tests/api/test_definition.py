"""Sweeps read and built in Python: the same trials as from YAML, the same messages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from made import SWEEP, write_sweep
from own_data import write_receipts

import lmmcl
from lmmcl.errors import UserError

SETTINGS = yaml.safe_load(SWEEP)


def keys(sweep: lmmcl.Sweep) -> list[str]:
    return [trial.key for trial in sweep.trials]


def test_a_sweep_built_in_python_is_the_sweep_of_the_same_yaml(tmp_path: Path) -> None:
    assert keys(lmmcl.make_sweep(**SETTINGS)) == keys(lmmcl.load_sweep(write_sweep(tmp_path)))


def test_tuples_arrays_and_paths_stand_for_lists_numbers_and_texts(tmp_path: Path) -> None:
    grid = {
        "model": ("tiny-onevision",),
        "recipe": ["sa_proj", "gate_up"],
        "learning_rate": np.array([1e-3, 3e-4]),
        "seed": range(1),
    }
    made = lmmcl.make_sweep(**{**SETTINGS, "grids": [grid]})
    assert keys(made) == keys(lmmcl.load_sweep(write_sweep(tmp_path)))


def test_overrides_are_a_mapping_or_the_texts_of_the_command_line(tmp_path: Path) -> None:
    file = write_sweep(tmp_path)
    texts = ["training.epochs=2", "training.learning_rate=1e-05", "grids[0].seed=[0, 1]"]
    mapping = {"training.epochs": 2, "training.learning_rate": 1e-5, "grids[0].seed": (0, 1)}
    assert keys(lmmcl.load_sweep(file, mapping)) == keys(lmmcl.load_sweep(file, texts)) != keys(lmmcl.load_sweep(file))
    with pytest.raises(UserError, match="a mapping such as"):
        lmmcl.load_sweep(file, "training.epochs=2")


def test_bad_settings_are_refused_with_their_place_and_the_nearest_name() -> None:
    grid = {**SETTINGS["grids"][0], "recipe": ["sa_prj"]}
    with pytest.raises(UserError, match=r"^grids\[0\]\.recipe\[0\]: unknown recipe 'sa_prj'; did you mean 'sa_proj'"):
        lmmcl.make_sweep(**{**SETTINGS, "grids": [grid]})
    with pytest.raises(UserError, match="unknown key 'order'; did you mean 'orders'"):
        lmmcl.make_sweep(**SETTINGS, order={})


def test_with_a_file_the_sweep_is_written_for_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "sweeps" / "mine.yaml"
    made = lmmcl.make_sweep(file=file, **SETTINGS)
    assert keys(made) == keys(lmmcl.load_sweep(file))
    assert made.file == str(file)
    changed = {**SETTINGS, "training": {**SETTINGS["training"], "epochs": 2}}
    assert keys(lmmcl.make_sweep(file=file, **changed)) == keys(lmmcl.load_sweep(file)) != keys(made)


def test_a_file_that_somebody_wrote_by_hand_is_never_replaced(tmp_path: Path) -> None:
    file = write_sweep(tmp_path)
    with pytest.raises(UserError, match=r"small\.yaml: exists and was not written by make_sweep"):
        lmmcl.make_sweep(file=file, **SETTINGS)
    assert file.read_text(encoding="utf-8") == SWEEP


def test_a_sweep_that_is_refused_writes_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        lmmcl.make_sweep(file=tmp_path / "bad.yaml", **SETTINGS, order={})
    assert not (tmp_path / "bad.yaml").exists()


def test_paths_are_relative_to_the_working_directory_or_to_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_receipts(tmp_path / "data")
    write_receipts(tmp_path / "data", name="test.json")
    files = {"train": "data/train.json", "test": "data/test.json", "metric": "anls"}
    own = {**SETTINGS, "orders": {"main": ["receipts"]}, "skills": {"receipts": files}}
    made = lmmcl.make_sweep(file=tmp_path / "mine.yaml", **own)
    monkeypatch.chdir(tmp_path)
    assert keys(lmmcl.make_sweep(**own)) == keys(made)


def test_a_sweep_is_shown_in_one_line(tmp_path: Path) -> None:
    assert repr(lmmcl.make_sweep(**SETTINGS)) == "<Sweep small: 4 trials>"
    assert repr(lmmcl.load_sweep(write_sweep(tmp_path))) == f"<Sweep small: 4 trials from {tmp_path / 'small.yaml'}>"
