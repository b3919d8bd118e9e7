"""What a sweep needs and this machine lacks is reported in one message, before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmmcl.config.sweep import load_sweep
from lmmcl.errors import UserError
from lmmcl.planning.inputs import check_inputs

SWEEPS = Path(__file__).parents[2] / "sweeps"


def test_models_and_data_that_are_missing_are_named_with_their_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMMCL_DATA", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: True)
    with pytest.raises(UserError) as told:
        check_inputs(load_sweep(SWEEPS / "paper.yaml").trials)
    said = str(told.value)
    assert "hf download llava-hf/llava-onevision" in said
    assert "hf download Qwen/Qwen2.5-VL-7B-Instruct" in said
    assert "lmmcl data prepare cub200 pixmo_count path_vqa text_vqa time_clock ai2d" in said
    assert "llava_665k" in said, "the data that a mitigation mixes in"


def test_what_ships_with_the_package_lacks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMMCL_DATA", str(tmp_path))
    check_inputs(load_sweep(SWEEPS / "quickstart.yaml").trials)
