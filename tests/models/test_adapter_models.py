"""An adapter folder as a model: merged at load as PEFT merges it, named by its content and its base, or refused with a remedy."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from models.small_families import FAMILIES, save
from safetensors.torch import load_file, save_file

from lmmcl.config.sweep import load_sweep
from lmmcl.errors import UserError
from lmmcl.models import get_model
from lmmcl.steps import Pretrained

QV = ["q_proj", "v_proj"]
MIXED = {
    "r": 4,
    "target_modules": [*QV, "down_proj"],
    "rank_pattern": {"down_proj": 2, "layers.0.self_attn.q_proj": 6},
    "alpha_pattern": {"v_proj": 5, "layers.0.self_attn.q_proj": 20},
    "use_rslora": True,
    "modules_to_save": ["multi_modal_projector"],
}


def train(base: str, folder: Path, **settings: Any) -> dict[str, torch.Tensor]:
    """Save an adapter over `base` with weights that change something; what PEFT merges of it, by name."""
    from peft import LoraConfig, get_peft_model

    model: Any = get_peft_model(get_model(base).load_model(), LoraConfig(**{"r": 4, "target_modules": QV, **settings}))
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "modules_to_save" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.peft_config["default"].base_model_name_or_path = base
    model.save_pretrained(folder)
    return dict(model.merge_and_unload().named_parameters())


def edit(folder: Path, **values: Any) -> Path:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return folder


def rename(folder: Path, change: Callable[[str], str]) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({change(name): value for name, value in tensors.items()}, path)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("base") / "qwen", *FAMILIES["qwen2_5_vl"]())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter over tiny-onevision; not to be changed."""
    folder = tmp_path_factory.mktemp("adapters") / "mine"
    train("tiny-onevision", folder)
    return folder


@pytest.fixture
def adapter(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "mine")


@pytest.mark.parametrize("settings", [{}, {"use_dora": True}, MIXED, {"target_modules": r".*layers\.1\.mlp\..*_proj"}])
def test_an_adapter_is_merged_as_peft_merges_it(tmp_path: Path, settings: dict[str, Any]) -> None:
    expected = train("tiny-onevision", tmp_path / "mine", **settings)
    model = get_model(str(tmp_path / "mine"))
    base = get_model("tiny-onevision").load_model()
    merged = model.load_model()
    assert type(merged) is type(base)
    assert not merged.training
    loaded = dict(merged.named_parameters())
    assert loaded.keys() == dict(base.named_parameters()).keys()
    assert all(parameter.requires_grad for parameter in loaded.values())
    assert all(torch.equal(loaded[name], value) for name, value in expected.items())
    assert any(not torch.equal(loaded[name], value) for name, value in base.named_parameters())
    assert model.role_counts() == get_model("tiny-onevision").role_counts()


def test_names_of_older_releases_find_the_modules_of_today(qwen: Path, tmp_path: Path) -> None:
    """PEFT alone leaves out all of such an adapter, with a warning."""
    settings = {"target_modules": r"^(?!.*visual).*\.(?:q|v)_proj$", "rank_pattern": {"layers.0.self_attn.q_proj": 2}}
    expected = train(str(qwen), tmp_path / "old", **settings)
    rename(tmp_path / "old", lambda name: name.replace("model.model.language_model.", "model.model."))
    assert "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" in load_file(
        tmp_path / "old" / "adapter_model.safetensors"
    )
    edit(tmp_path / "old", target_modules=r"^model\.layers\..*\.(?:q|v)_proj$")
    model = get_model(str(tmp_path / "old"))
    model.role_counts()
    assert all(torch.equal(value, expected[name]) for name, value in model.load_model().named_parameters())


def test_what_trainers_leave_beside_an_adapter_is_no_part_of_it(adapter: Path, trained: Path) -> None:
    """LLaMA-Factory saves a tokenizer, TRL arguments and a card."""
    for name in ("README.md", "tokenizer.json", "trainer_state.json", "training_args.bin", "added_tokens.json"):
        (adapter / name).write_text("{}")
    edit(adapter, base_model_name_or_path="tiny-onevision", inference_mode=False, revision=None)
    model = get_model(str(adapter))
    assert model.identity() == get_model(str(trained)).identity()
    assert Pretrained(model).key == Pretrained(get_model(str(trained))).key
    assert model.name.startswith("mine-")
    assert get_model(model.reference).identity() == model.identity()


def test_the_key_holds_the_base_and_all_that_the_adapter_computes(adapter: Path, trained: Path, tmp_path: Path) -> None:
    first = get_model(str(trained)).identity()
    assert first["base"] == get_model("tiny-onevision").identity()
    assert get_model(str(edit(adapter, lora_alpha=99))).identity() != first
    shutil.copyfile(trained / "adapter_config.json", adapter / "adapter_config.json")
    assert get_model(str(adapter)).identity() == first
    tiny = get_model("tiny-onevision")
    tiny.load_model().save_pretrained(tmp_path / "base")
    tiny.save_processor(tmp_path / "base")
    assert get_model(f"{adapter}::{tmp_path / 'base'}").identity() != first


def test_a_sweep_starts_from_an_adapter(adapter: Path, tmp_path: Path) -> None:
    text = "name: one\norders: {{main: [counting]}}\ngrids:\n  - {{model: [{}], recipe: [sa_proj]}}\n"
    (tmp_path / "one.yaml").write_text(text.format("{adapter: mine, base: tiny-onevision}"))
    (trial,) = load_sweep(tmp_path / "one.yaml").trials
    assert trial.model.identity() == get_model(str(adapter)).identity()
    (tmp_path / "one.yaml").write_text(text.format("{adapter: mine, bases: tiny-onevision}"))
    with pytest.raises(UserError, match=r"grids\[0\].model\[0\]: unknown key 'bases'; did you mean 'base'"):
        load_sweep(tmp_path / "one.yaml")
    (tmp_path / "one.yaml").write_text(text.format("{adaptor: mine}"))
    with pytest.raises(UserError, match=r"a model is a name, {adapter: DIRECTORY, base: MODEL} or"):
        load_sweep(tmp_path / "one.yaml")


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("", "adapter_config.json names no base model; name the base yourself: {adapter: FOLDER, base: MODEL}"),
        ("/home/me/gone", "its base model '/home/me/gone' is not to be had here"),
        ("tiny-onevison", "did you mean 'tiny-onevision'"),
        ("tiny-qwen", "does not belong to this base: .* of its modules are not in the base|fits the base"),
    ],
)
def test_a_base_that_is_missing_or_another_one_is_refused(adapter: Path, base: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        get_model(str(edit(adapter, base_model_name_or_path=base))).role_counts()


def test_an_adapter_that_names_another_model_of_the_hub_is_refused(adapter: Path) -> None:
    edit(adapter, base_model_name_or_path="Qwen/Qwen2.5-VL-7B-Instruct")
    with pytest.raises(
        UserError, match=r"was trained on Qwen/Qwen2\.5-VL-7B-Instruct, and the base is Qwen/Qwen2\.5-VL-3B"
    ):
        get_model({"adapter": str(adapter), "base": "Qwen/Qwen2.5-VL-3B-Instruct"})
    named = get_model({"adapter": str(adapter), "base": "qwen2.5-vl-7b"})
    assert named.identity() == get_model(str(adapter)).identity()
    assert named.identity()["base"] == get_model("qwen2.5-vl-7b").identity()
    with pytest.raises(UserError, match=r"not in the base|fits the base"):
        named.role_counts()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"peft_type": "IA3"}, r"is an adapter of kind IA3; merged at load: LORA .*merge_and_unload"),
        ({"peft_type": "PREFIX_TUNING"}, "kind PREFIX_TUNING"),
        ({"layer_replication": [[0, 1], [0, 2]]}, "LORA with layer_replication"),
        ({"target_parameters": ["experts.gate_up_proj"]}, "LORA with target_parameters"),
    ],
)
def test_a_kind_that_is_not_merged_is_refused(adapter: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        get_model(str(edit(adapter, **change)))


def test_files_that_are_missing_or_elsewhere_are_named(adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    shutil.copytree(adapter, tmp_path / "output" / "checkpoint-10")
    for name in (str(tmp_path / "output"), f"{tmp_path / 'output'}::tiny-onevision"):
        with pytest.raises(UserError, match=r"there is an? .*checkpoint-10|there is one in checkpoint-10"):
            get_model(name)
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(UserError, match=r"no adapter_model.safetensors found; there is adapter_model.bin"):
        get_model(str(adapter))


def test_a_tensor_of_another_shape_or_of_no_module_is_refused_before_anything_is_loaded(adapter: Path) -> None:
    rename(adapter, lambda name: name.replace("layers.1.", "layers.7."))
    with pytest.raises(UserError, match=r"4 of its modules are not in the base \(.*layers\.7"):
        get_model(str(adapter)).role_counts()
    path = adapter / "adapter_model.safetensors"
    rename(adapter, lambda name: name.replace("layers.7.", "layers.1."))
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("lora_A.weight"))
    save_file({**tensors, name: tensors[name][:, :-1].contiguous()}, path)
    with pytest.raises(UserError, match=r"lora_A of .* is 4×\d+, and 4×\d+ fits the base"):
        get_model(str(adapter)).role_counts()


def test_a_tied_embedding_that_was_trained_as_a_head_alone_is_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train("tiny-onevision", tmp_path / "head", modules_to_save=["lm_head"])
    if get_model("tiny-onevision").load_model().config.get_text_config().tie_word_embeddings:
        with pytest.raises(UserError, match="it unties an embedding"):
            get_model(str(tmp_path / "head")).load_model()


def test_another_chat_template_beside_the_adapter_is_told(
    qwen: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(str(qwen), tmp_path / "mine")
    shutil.copyfile(qwen / "chat_template.jinja", tmp_path / "mine" / "chat_template.jinja")
    get_model(str(tmp_path / "mine"))
    assert not caplog.messages
    (tmp_path / "mine" / "chat_template.jinja").write_text("other")
    get_model(str(tmp_path / "mine"))
    assert "its chat template differs from the base's, and the base's is used" in caplog.text
