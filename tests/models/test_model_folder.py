"""What is loaded of a model's directory is what its weights hold, and all that changes it belongs to its name."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor

from lmmcl.errors import UserError
from lmmcl.models import get_model
from lmmcl.models.model_folder import weight_files

Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, folder = get_model("tiny-qwen"), tmp_path_factory.mktemp("saved") / "qwen"
    model.load_model().save_pretrained(folder)
    model.save_processor(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return shutil.copytree(saved, tmp_path / "mine")


def rewrite(folder: Path, change: Callable[[Weights], Weights]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def digest(folder: Path) -> str:
    return get_model(str(folder)).identity()["digest"]


LACKING: dict[str, Callable[[Weights], Weights]] = {
    "12 of .* model.language_model.layers.2": lambda w: {n: t for n, t in w.items() if ".layers.2." not in n},
    "30 of .* model.visual.blocks.0": lambda w: {n: t for n, t in w.items() if "visual" not in n},
    "begin with 'base_model.model.'": lambda w: {f"base_model.model.{n}": t for n, t in w.items()},
    "begin with 'module.'": lambda w: {f"module.{n}": t for n, t in w.items()},
    "another shape .* model.language_model.norm.weight is 3, not 96": lambda w: {
        **w,
        "model.norm.weight": w["model.norm.weight"][:3].clone(),
    },
}


@pytest.mark.parametrize("said", LACKING)
def test_what_the_weights_lack_is_refused_by_name_before_and_when_it_is_loaded(said: str, folder: Path) -> None:
    rewrite(folder, LACKING[said])
    model = get_model(str(folder))
    for look in (model.role_counts, model.load_model):
        with pytest.raises(UserError, match=said):
            look()


def test_a_plan_refuses_a_model_that_lacks_weights(folder: Path, tmp_path: Path) -> None:
    from lmmcl.config.sweep import load_sweep

    rewrite(folder, LACKING["12 of .* model.language_model.layers.2"])
    sweep = tmp_path / "one.yaml"
    sweep.write_text("name: one\norders: {main: [counting]}\ngrids: [{model: [./mine], recipe: [sa_proj]}]\n")
    with pytest.raises(UserError, match=r"grids\[0\].*the weights lack 12 of the model's tensors"):
        load_sweep(sweep)


def test_complete_weights_are_looked_through_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    get_model(str(folder)).role_counts()
    monkeypatch.setattr("lmmcl.models.configured.load_whole", None)
    get_model(str(folder)).role_counts()


def test_what_is_left_over_in_the_weights_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    rewrite(folder, lambda w: {**w, "model.talker.weight": w["model.norm.weight"].clone()})
    with caplog.at_level(logging.WARNING, logger="lmmcl"):
        get_model(str(folder)).load_model()
    assert any(
        "1 tensors of its files are not loaded" in message and "talker" in message for message in caplog.messages
    )


def test_an_old_single_file_beside_newer_shards_is_refused(folder: Path) -> None:
    whole = load_file(folder / "model.safetensors")
    save_file(whole, folder / "model-00001-of-00001.safetensors", metadata={"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(whole, "model-00001-of-00001.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"two sets of weights.*remove the older one"):
        get_model(str(folder))
    (folder / "model.safetensors").unlink()
    assert get_model(str(folder)).load_model()


def test_weights_that_transformers_would_not_pick_are_none(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "consolidated.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"old")
    with pytest.raises(UserError, match=r"no weights .* there is consolidated\.safetensors, pytorch_model\.bin"):
        get_model(str(folder))
    named = {"transformers_weights": "consolidated.safetensors"}
    assert weight_files(folder, named, place="here") == [folder / "consolidated.safetensors"]


def test_an_adapter_beside_the_model_is_refused(folder: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "lora_alpha": 16}))
    with pytest.raises(UserError, match=r"PEFT adapter .* silently apply it; .*merge_and_unload"):
        get_model(str(folder))


@pytest.mark.parametrize(
    "name", ["additional_chat_templates/tool_use.jinja", "tekken.json", "qwen.tiktoken", "config.5.0.0.json"]
)
def test_every_file_that_may_change_what_is_loaded_or_said_changes_the_name(name: str, folder: Path) -> None:
    before = digest(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("other")
    assert digest(folder) != before


def set_stops(folder: Path, value: Any) -> None:
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": value}))


def test_other_tokens_that_end_an_answer_are_another_model(folder: Path) -> None:
    before = digest(folder)
    set_stops(folder, [7, 9])
    first = digest(folder)
    set_stops(folder, [9, 7])
    assert before != first == digest(folder)


def test_generation_settings_that_are_not_used_and_stops_that_the_configuration_has_change_nothing(
    folder: Path,
) -> None:
    (folder / "generation_config.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": 5}))
    before = digest(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 5, "temperature": 0.3}))
    assert digest(folder) == before


def test_files_that_change_after_a_sweep_was_read_are_not_loaded_under_its_key(folder: Path) -> None:
    model = get_model(str(folder))
    assert model.identity()
    rewrite(folder, lambda w: {name: tensor * 2 for name, tensor in w.items()})
    with pytest.raises(UserError, match="changed since the sweep was read"):
        model.load_model()
