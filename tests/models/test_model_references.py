"""How models are named: by short name, id of the hub, directory; near names, and one key for one model."""

from __future__ import annotations

from pathlib import Path

import pytest
from models.small_families import FAMILIES, save

from lmmcl.config.sweep import load_sweep
from lmmcl.errors import UserError
from lmmcl.models import get_model, model_names
from lmmcl.models.hub import HubCheckpoint, HubModel
from lmmcl.models.sources.reference import is_reference, paths_in
from lmmcl.steps import Pretrained

PIN = "66285546d2b821cf421d4f5eb2576359d3770cd3"
OTHER = "0" * 40
ID = "Qwen/Qwen2.5-VL-3B-Instruct"


@pytest.mark.parametrize("name", [n for n in model_names() if isinstance(get_model(n), HubModel)])
def test_the_id_of_a_model_that_has_a_short_name_is_that_model(name: str) -> None:
    model = get_model(name)
    assert isinstance(model, HubModel)
    assert get_model(model.hub) is model
    if model.revision:
        assert get_model(f"{model.hub}@{model.revision}") is model
        assert get_model(f"{model.hub}@{model.revision[:8]}+thinking").identity() == model.with_thinking().identity()


def test_another_commit_is_another_model_of_a_name_of_its_own() -> None:
    for reference in (f"{ID}@{OTHER}", f"qwen2.5-vl-3b@{OTHER}"):
        model = get_model(reference)
        assert model == HubCheckpoint(ID, OTHER)
        assert model.name == "Qwen2.5-VL-3B-Instruct-00000000"
        assert model.label == "Qwen--Qwen2.5-VL-3B-Instruct-000000000000"
        assert get_model(model.reference) == model
    assert Pretrained(get_model(ID)).key == Pretrained(get_model("qwen2.5-vl-3b")).key


def test_an_id_in_a_sweep_has_the_keys_of_the_short_name(tmp_path: Path) -> None:
    text = "name: one\norders: {{main: [counting]}}\ngrids:\n  - {{model: [{}], recipe: [sa_proj]}}\n"
    keys = []
    for name in ("qwen2.5-vl-3b", ID, f"'{ID}@{PIN}'"):
        (tmp_path / "one.yaml").write_text(text.format(name))
        (trial,) = load_sweep(tmp_path / "one.yaml").trials
        keys.append((trial.key, trial.name))
    assert len(set(keys)) == 1
    (tmp_path / "one.yaml").write_text(text.format(f"{ID}, qwen2.5-vl-3b"))
    with pytest.raises(UserError, match=r"'qwen2\.5-vl-3b' is already listed, at model\[0\]"):
        load_sweep(tmp_path / "one.yaml")


def test_a_directory_of_that_name_comes_before_the_hub(tmp_path: Path) -> None:
    directory = save(tmp_path / "Qwen" / "Qwen2.5-VL-3B-Instruct", *FAMILIES["llava"]())
    assert get_model(ID, tmp_path).identity() == get_model(str(directory)).identity()
    assert get_model(ID).identity()["name"] == "qwen2.5-vl-3b"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "qwen2.5-vl-4b",
            r"did you mean 'qwen2\.5-vl-7b' or 'qwen2\.5-vl-3b'.*or the id of a model of the Hugging Face hub",
        ),
        ("models/mine", r"models/mine: not in the local cache and HF_HUB_OFFLINE is set.*models/mine does not exist"),
        ("models/mine/deeper", r"model .*models/mine/deeper: No such directory"),
        ("./mine", r"model .*/mine: No such directory"),
        ("checkpoint:abc", r"a checkpoint is named checkpoint:KEY@STORE"),
    ],
)
def test_a_name_that_means_nothing_is_answered_with_what_it_might_have_been(name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        get_model(name)


@pytest.mark.parametrize(
    "name", ["tiny-qwen", "qwen2.5-vl-3b@main", ID, "./mine", "~/mine", "mine/lora::tiny-qwen", "checkpoint:a@b"]
)
def test_a_reference_is_told_from_the_name_of_a_trial(name: str) -> None:
    assert is_reference(name)
    assert is_reference(f"{name}+thinking")
    assert not is_reference("sa_proj · lr 1e-3")
    assert not is_reference("sa_proj · lr 1e-3 · tiny-qwen@1")


def test_the_paths_that_a_job_has_to_bring_are_those_of_directories(tmp_path: Path) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert paths_in(ID, tmp_path) == []
    assert paths_in("owner/name", tmp_path) == ["owner/name"]
    assert paths_in("../lora::./base+thinking", tmp_path) == ["../lora", "./base"]
    assert paths_in({"adapter": "./lora", "base": ID}, tmp_path) == ["./lora"]
    assert paths_in({"checkpoint": "a", "store": "../store"}, tmp_path) == ["../store"]
    assert paths_in({"checkpoint": "a", "store": "s3://bucket/store"}, tmp_path) == []
