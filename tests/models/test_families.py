"""The named checkpoints at true size, built without memory: a partition of their parameters, with the published counts."""

import json
import subprocess
import sys
import time
from functools import cache

import pytest

from lmmcl.errors import UserError
from lmmcl.inspection.catalog import model_facts
from lmmcl.models import get_model, model_names
from lmmcl.models.architecture import architectures
from lmmcl.models.hub import HubModel
from lmmcl.models.inventory import HUB, count_roles, meta_model, parameter_counts, piece_counts, shipped

HUB_MODELS = {name: model for name in model_names() if isinstance(model := get_model(name), HubModel)}
NAMED = sorted(name for name, model in HUB_MODELS.items() if model.revision)
OPEN = sorted(HUB_MODELS.keys() - set(NAMED))
DOCUMENTED = ["qwen3.5-35b-a3b", "qwen3.5-9b"]
"""Models without a revision whose inventory ships: that of transformers' configuration at the documented sizes."""
ASKED_FOR = {
    "llava-onevision-0.5b",
    "llava-onevision-7b",
    "llava-next-llama3-8b",
    "llava-next-vicuna-7b",
    "llava-next-mistral-7b",
    "qwen2.5-vl-3b",
    "qwen2.5-vl-7b",
    "llava-1.5-7b",
    "instructblip-vicuna-7b",
}
TOTALS = {  # guards against an accidental edit of a shipped configuration
    "llava-1.5-7b": 7_063_427_072,
    "llava-next-vicuna-7b": 7_063_431_168,
    "llava-next-mistral-7b": 7_566_747_648,
    "qwen2.5-vl-3b": 3_754_622_976,
    "qwen2.5-vl-7b": 8_292_166_656,
    "qwen3-vl-2b": 2_127_532_032,
    "qwen3-vl-4b": 4_437_815_808,
    "qwen3-vl-8b": 8_767_123_696,
    "instructblip-vicuna-7b": 7_913_726_720,
    "smolvlm2-500m": 507_482_304,
    "smolvlm2-2.2b": 2_246_784_880,
    "gemma-3-4b": 4_300_079_472,
}
PUBLISHED = [  # model, role or recipe, millions of parameters to the digits published (LMM-CL, Model Tailor)
    ("llava-onevision-7b", "full", 8030, 10),
    ("llava-onevision-7b", "llm", 7620, 10),
    ("llava-onevision-7b", "mlp", 5700, 10),
    ("llava-onevision-7b", "gate_up", 3800, 10),
    ("llava-onevision-7b", "sa_proj", 822, 1),
    ("llava-onevision-7b", "sa_qkv", 460, 10),
    ("llava-onevision-7b", "projector", 17, 1),
    ("qwen2.5-vl-7b", "sa_proj", 822, 1),
    ("qwen2.5-vl-7b", "gate_up", 3800, 10),
    ("qwen2.5-vl-3b", "sa_proj", 340, 1),
    ("qwen2.5-vl-3b", "gate_up", 1620, 10),
    ("llava-next-llama3-8b", "sa_proj", 1340, 10),
    ("instructblip-vicuna-7b", "qformer", 188.8, 0.1),
]


@cache
def at_true_size(name):
    """Parameter sizes by name of the model that transformers builds from the shipped configuration."""
    return parameter_counts(meta_model(shipped(name)["config"]))


def test_the_families_of_the_papers_and_those_in_use_now_are_there():
    assert set(NAMED) >= ASKED_FOR
    assert set(architectures()) >= {"qwen3_vl", "internvl", "smolvlm", "gemma3"}


def test_every_shipped_inventory_has_its_model():
    assert sorted(path.stem for path in HUB.glob("*.json")) == sorted([*NAMED, *DOCUMENTED])


@pytest.mark.parametrize("name", DOCUMENTED)
def test_an_inventory_that_was_not_read_from_a_checkpoint_says_so(name):
    model = meta_model(shipped(name)["config"])
    sizes = parameter_counts(model)
    roles = get_model(name).roles_of(sizes)
    assert count_roles(roles, sizes, piece_counts(model, roles)) == get_model(name).role_counts()
    about = model_facts(name)["about"]
    assert "not read from the checkpoint" in about["shapes"]
    assert about["revision"] == "the one that the hub names at the first use"


def test_what_is_tuned_now_has_a_name_without_an_invented_revision_or_shape():
    assert len(OPEN) >= 20
    types = {model.family for name, model in HUB_MODELS.items() if name in OPEN}
    assert types >= {
        "qwen3_5",
        "qwen3_5_moe",
        "qwen3_vl_moe",
        "gemma3n",
        "gemma4",
        "glm46v",
        "llama4",
        "mistral3",
        "llava",
    }
    assert types >= {"minicpmv4_6", "paligemma", "internvl", "lfm2_vl", "idefics3", "mllama", "ovis2", "aya_vision"}
    for name in OPEN:
        model = get_model(name)
        assert model.revision == ""
        assert model.architecture.chat != "not known" and model.architecture.images != "not known"
        assert get_model(model.hub) is model
        if name not in DOCUMENTED:
            with pytest.raises(UserError, match=rf"model {name}: {model.hub}: not in the local cache"):
                model.role_counts()


@pytest.mark.parametrize("name", NAMED)
def test_every_parameter_at_true_size_has_one_role_and_the_shipped_counts_are_theirs(name):
    sizes = at_true_size(name)
    roles = get_model(name).roles_of(sizes)
    assert set(roles) == set(sizes)
    assert count_roles(roles, sizes) == get_model(name).role_counts()


@pytest.mark.parametrize("name", sorted(TOTALS))
def test_the_size_of_a_named_checkpoint_does_not_change_by_accident(name):
    assert sum(get_model(name).role_counts().values()) == TOTALS[name]


@pytest.mark.parametrize(("name", "part", "millions", "tolerance"), PUBLISHED)
def test_roles_and_recipes_have_the_published_sizes(name, part, millions, tolerance):
    facts = model_facts(name)
    size = facts["recipes"].get(part) or facts["roles"][part]
    assert size["parameters"] / 1e6 == pytest.approx(millions, abs=tolerance)
    assert size["bytes"] == 2 * size["parameters"]


@pytest.mark.parametrize("name", NAMED)
def test_recipes_of_the_language_model_never_reach_into_the_tower(name):
    sizes = at_true_size(name)
    roles = get_model(name).roles_of(sizes)
    config = meta_model_config(name)
    layers = config["num_hidden_layers"]
    gates = [parameter for parameter, role in roles.items() if role.startswith("llm") and role.endswith("mlp.gate")]
    assert len(gates) == layers
    assert all("vis" not in parameter for parameter, role in roles.items() if role.startswith("llm."))
    assert all("language_model" not in parameter for parameter, role in roles.items() if role.startswith("vision."))


def meta_model_config(name):
    return shipped(name)["config"]["text_config"]


@pytest.mark.parametrize("name", NAMED)
def test_full_trains_everything(name):
    facts = model_facts(name)
    assert facts["recipes"]["full"] == facts["total"]


def test_a_recipe_that_names_a_role_which_a_model_lacks_is_not_shown_for_it():
    facts = model_facts("instructblip-vicuna-7b")
    assert "projector" not in facts["recipes"]
    assert "matches no parameter" in facts["refused"]["projector"]
    assert {"sa_proj", "gate_up", "full"} <= set(model_facts("instructblip-vicuna-7b")["recipes"])


READ_OTHERWISE = ("llava", "llava_next", "smolvlm", "instructblip", "gemma3")
"""Families whose dialogues once became other tokens: their keys say so."""


@pytest.mark.parametrize("name", NAMED)
def test_a_name_means_one_commit_and_its_family_tells_how_it_talks_and_sees(name):
    model = get_model(name)
    assert len(model.revision) == 40
    assert set(model.revision) <= set("0123456789abcdef")
    dialogues = {"dialogues": 2} if model.family in READ_OTHERWISE else {}
    assert model.identity() == {"name": name, "hub": model.hub, "revision": model.revision, **dialogues}
    about = model_facts(name)["about"]
    assert (about["hub"], about["revision"], about["family"]) == (model.hub, model.revision, model.family)
    assert about["chat"] and about["images"]
    assert model.label == model.reference == name


def test_showing_a_model_imports_neither_torch_nor_transformers_and_is_instant():
    code = (
        "import sys, json\nfrom lmmcl.inspection.catalog import model_facts\n"
        f"facts = [model_facts(name) for name in {NAMED!r}]\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)), all({'roles', 'recipes'} <= set(f) for f in facts))"
    )
    started = time.monotonic()
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[] True"
    assert time.monotonic() - started < 20


def test_without_network_and_cache_a_model_is_refused_with_how_to_fetch_it(monkeypatch, tmp_path):
    code = (
        "from lmmcl.models import get_model\nfrom lmmcl.errors import UserError\n"
        "model = get_model('qwen2.5-vl-3b')\n"
        "for call in (model.check, model.load_model, model.load_processor):\n"
        "    try: call()\n    except UserError as error: print(error)\n"
    )
    env = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout
    lines = said.strip().splitlines()
    assert len(lines) == 3
    for line in lines:
        assert line.startswith("model qwen2.5-vl-3b: Qwen/Qwen2.5-VL-3B-Instruct at revision 66285546d2b8")
        assert "config.json" in line
        assert "hf download Qwen/Qwen2.5-VL-3B-Instruct --revision" in line


def test_a_hub_that_cannot_be_reached_is_a_refusal_too(tmp_path):
    code = (
        "from lmmcl.models import get_model\nfrom lmmcl.errors import UserError\n"
        "try: get_model('llava-1.5-7b').check()\nexcept UserError as error: print(error)\n"
    )
    env = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "NO_PROXY": "*"}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout
    assert "not in the local cache, and the hub cannot be reached" in said
    assert "hf download llava-hf/llava-1.5-7b-hf" in said


def test_what_lies_in_the_cache_is_enough_without_network(monkeypatch, tmp_path):
    import huggingface_hub

    model = get_model("llava-next-llama3-8b")
    found = {"config.json": "{}", "model.safetensors.index.json": json.dumps({"weight_map": {"a": "one", "b": "two"}})}
    for name in (*found, "one", "preprocessor_config.json"):
        (tmp_path / name).write_text(found.get(name, ""))

    def cached(hub, name, revision):
        assert (hub, revision) == (model.hub, model.revision)
        return str(tmp_path / name) if (tmp_path / name).exists() else None

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: True)
    with pytest.raises(UserError, match=r"\(two\)"):
        model.check()
    (tmp_path / "two").write_text("")
    model.check()


def test_models_that_ship_need_nothing():
    get_model("tiny-onevision").check()


def test_a_named_model_is_loaded_from_what_the_cache_holds(monkeypatch, tmp_path):
    """The way of `load_model`, `load_processor` and `save_processor` with a small model in place of the cached files."""
    import dataclasses

    import huggingface_hub
    from models.small_families import FAMILIES, save

    from lmmcl.models.processing.encode import encode
    from lmmcl.tasks.examples import ask

    directory = save(tmp_path / "cached", *FAMILIES["llava"]())

    class Cached(HubModel):
        def source(self):
            return {"pretrained_model_name_or_path": str(directory), "local_files_only": True}

        def role_counts(self):
            return {"llm": 1}

    def cached(hub, name, revision):
        return str(directory / name) if (directory / name).exists() else None

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda hub, revision, allow_patterns: str(directory))
    named = get_model("llava-1.5-7b")
    model = Cached(**{field.name: getattr(named, field.name) for field in dataclasses.fields(named)})
    with pytest.warns(UserWarning, match="its shipped inventory says 1"):
        loaded = model.load_model(precision="bf16")
    assert {str(parameter.dtype) for parameter in loaded.parameters()} == {"torch.bfloat16"}
    assert not loaded.training
    processor = model.load_processor()
    assert encode(processor, ask("a", "What?", "red"), with_answer=True)["labels"].tolist()[-1] == 2
    model.save_processor(tmp_path / "copied")
    assert {path.name for path in (tmp_path / "copied").iterdir()} == {
        "chat_template.jinja",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    original = directory / "processor_config.json"
    assert (tmp_path / "copied" / "processor_config.json").read_bytes() == original.read_bytes()
