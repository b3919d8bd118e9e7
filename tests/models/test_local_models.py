"""A directory as a model: found by its path, named by its content, its parts told by its family or recognised, or refused."""

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from models.small_families import FAMILIES, language, llava, save, tokenizer, tower

from lmmcl.config.sweep import load_sweep
from lmmcl.errors import UserError
from lmmcl.inspection.catalog import model_facts
from lmmcl.models import get_model
from lmmcl.models.families.generic import VERSION
from lmmcl.models.processing.encode import encode
from lmmcl.models.roles import summary
from lmmcl.steps import Pretrained
from lmmcl.tasks.examples import ask


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("small") / "llava", *FAMILIES["llava"]())


@pytest.fixture(scope="module")
def unknown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ViP-LLaVA, which has no family file: CLIP, a projector of its own, Llama."""
    return save(tmp_path_factory.mktemp("unknown") / "vip", *llava("vipllava"))


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_equal_content_is_the_same_model_wherever_it_lies(small: Path, tmp_path: Path) -> None:
    here, there = get_model(str(small)), get_model(str(shutil.copytree(small, tmp_path / "moved")))
    assert here.identity() == there.identity()
    assert Pretrained(here).key == Pretrained(there).key
    assert Pretrained(here).path == Pretrained(there).path
    assert here.name.startswith("llava-")
    assert there.name.startswith("moved-")
    assert here.label.startswith("llava-")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "chat_template.jinja", "tokenizer.json"])
def test_another_byte_in_weights_or_processor_is_another_model(small: Path, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(small, tmp_path / "changed")
    (copy / name).write_bytes((copy / name).read_bytes() + b" ")
    assert get_model(str(copy)).identity() != get_model(str(small)).identity()


def test_what_tells_only_where_a_directory_comes_from_is_not_part_of_it(small: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(small, tmp_path / "noted")
    (copy / "lmmcl.json").write_text("{}")
    (copy / "README.md").write_text("mine")
    assert get_model(str(copy)).identity() == get_model(str(small)).identity()


def test_roles_and_counts_are_those_of_the_loaded_model(small: Path) -> None:
    model = get_model(str(small))
    loaded = model.load_model()
    assert sum(model.role_counts().values()) == sum(parameter.numel() for parameter in loaded.parameters())
    assert model.role_counts() == model.role_counts()
    facts = model_facts(str(small))
    assert facts["recipes"]["full"] == facts["total"]


def test_a_second_look_needs_no_torch(small: Path) -> None:
    get_model(str(small)).role_counts()
    code = (
        "import sys\nfrom lmmcl.models import get_model\n"
        f"model = get_model({str(small)!r}); model.role_counts(); model.identity()\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"


def test_a_sweep_names_a_directory_relative_to_its_file(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(small, tmp_path / "models" / "mine")
    (tmp_path / "sweeps").mkdir()
    sweep = tmp_path / "sweeps" / "one.yaml"
    text = "name: one\norders: {{main: [counting]}}\ngrids:\n  - {{model: [{}], recipe: [sa_proj]}}\n"
    sweep.write_text(text.format("../models/mine"))
    monkeypatch.chdir(tmp_path.parent)
    (trial,) = load_sweep(sweep).trials
    assert trial.model.identity() == get_model(str(small)).identity()
    assert trial.axes["model"].startswith("mine-")
    sweep.write_text(text.format("../models/other"))
    with pytest.raises(UserError, match=r"grids\[0\].model\[0\]: model .*models/other: No such directory"):
        load_sweep(sweep)


def test_an_architecture_without_a_family_file_works_with_a_warning_that_says_so(unknown: Path) -> None:
    model = get_model(str(unknown))
    with pytest.warns(UserWarning, match=r"no family file for model_type 'vipllava'"):
        counts = model.role_counts()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.role_counts() == counts  # said once
    loaded = model.load_model()
    roles = model.roles_of(name for name, _ in loaded.named_parameters())
    assert sum(counts.values()) == sum(parameter.numel() for parameter in loaded.parameters())
    assert set(summary(roles.values())) >= {"vision.blocks.*.mlp", "projector", "llm.blocks.*.attention.q", "llm.head"}
    encoded = encode(model.load_processor(), ask("a", "What?", "red"), with_answer=True)
    assert torch.isfinite(loaded(**{key: value[None] for key, value in encoded.items()}).loss)


def test_keys_say_which_version_of_the_rules_only_where_they_changed_what_trains(unknown: Path, tmp_path: Path) -> None:
    assert "roles" not in get_model(str(unknown)).identity()
    copy = shutil.copytree(unknown, tmp_path / "changed")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "model_type": "qwen3_5"}))
    assert get_model(str(copy)).identity()["roles"] == VERSION


def test_a_family_with_other_parts_than_its_file_knows_is_told_by_its_modules(tmp_path: Path) -> None:
    config, processor = llava()
    config["vision_config"] = tower("pixtral", head_dim=16) | {"image_size": 32}
    config["vision_feature_layer"] = -1
    model = get_model(str(save(tmp_path / "llava", config, processor)))
    roles = model.roles_of(name for name, _ in model.load_model().named_parameters())
    assert set(summary(roles.values())) >= {
        "vision.blocks.*.mlp",
        "vision.embeddings",
        "llm.blocks.*.mlp.gate",
        "projector",
    }
    assert not any(role.endswith("other") for role in roles.values())


def test_a_language_model_without_eyes_is_refused(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    words = tokenizer(eos="</s>")
    values: dict[str, Any] = language(words, "qwen2")
    AutoModelForCausalLM.from_config(AutoConfig.for_model(**values)).save_pretrained(tmp_path / "text")
    words.save_pretrained(tmp_path / "text")
    with pytest.raises(UserError, match="no processor"):
        get_model(str(tmp_path / "text"))
    (tmp_path / "text" / "preprocessor_config.json").write_text("{}")
    with pytest.raises(UserError, match="no image-text-to-text model for model_type 'qwen2'"):
        get_model(str(tmp_path / "text")).role_counts()


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("config.json", "config.json not found"),
        ("model.safetensors", "no weights found"),
        ("processor_config.json", "no processor found"),
    ],
)
def test_an_incomplete_directory_is_refused_at_once(small: Path, tmp_path: Path, missing: str, said: str) -> None:
    copy = shutil.copytree(small, tmp_path / "part")
    (copy / missing).unlink()
    with pytest.raises(UserError, match=said):
        get_model(str(copy))


def test_a_missing_shard_is_named(small: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(small, tmp_path / "shards")
    (copy / "model.safetensors").rename(copy / "model-1.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"weights are missing: model-2\.safetensors"):
        get_model(str(copy))


def test_a_tiny_model_that_was_saved_is_read_as_it_was(tmp_path: Path) -> None:
    tiny = get_model("tiny-onevision")
    tiny.load_model().save_pretrained(tmp_path / "saved")
    tiny.save_processor(tmp_path / "saved")
    again = get_model(str(tmp_path / "saved"))
    assert again.role_counts().keys() == tiny.role_counts().keys()
    example = ask("a", "What colour is this?", "red")
    one, other = (encode(model.load_processor(), example, with_answer=True) for model in (tiny, again))
    assert type(again.load_processor()).__name__ == "TinyOnevisionProcessor"
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_name_that_is_neither_model_nor_directory_is_answered_with_the_near_ones() -> None:
    with pytest.raises(UserError, match=r"did you mean 'llava-1.5-7b'.*the path of a save_pretrained directory"):
        get_model("llava-1.5-8b")
