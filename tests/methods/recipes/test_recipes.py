"""Recipes: names, unions, selectors, adapters and learning rates, all as data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made import SWEEP, MadeModel, write_sweep

from lmmcl.config.sweep import load_sweep
from lmmcl.errors import UserError
from lmmcl.methods.recipes.adapters import LoRA
from lmmcl.methods.recipes.recipe import RECIPES, Recipe, get_recipe
from lmmcl.models import LMM, get_model, model_names
from lmmcl.models.inventory import ships
from lmmcl.models.linears import linear_shapes, meta_of, shapes_of
from lmmcl.models.roles import resolve, select
from lmmcl.steps.count_trained import count_trained

TINY = get_model("tiny-onevision")


def trained_roles(recipe: Recipe, model: LMM = TINY) -> set[str]:
    return select({role: role for role in model.role_counts()}, recipe.train, model=model.name)


@pytest.mark.parametrize(
    ("name", "trained"),
    [
        ("mlp_down", {"llm.blocks.*.mlp.down"}),
        ("sa_vo", {"llm.blocks.*.attention.v", "llm.blocks.*.attention.o"}),
        ("vision_attention", {"vision.blocks.*.attention"}),
        ("vision_mlp", {"vision.blocks.*.mlp"}),
        ("embeddings", {"llm.embeddings"}),
        ("norms", {"llm.blocks.*.norm", "llm.norm"}),
        ("sa_proj+gate_up", {f"llm.blocks.*.{part}" for part in ("attention.q", "attention.k", "attention.v", "attention.o", "mlp.gate", "mlp.up")}),
    ],
)  # fmt: skip
def test_a_component_recipe_trains_its_component(name: str, trained: set[str]) -> None:
    from lmmcl.models.roles import summary

    assert set(summary(trained_roles(get_recipe(name)))) == trained


def test_every_recipe_fits_a_seven_billion_model() -> None:
    model = get_model("llava-onevision-7b")
    sizes = {
        name: count_trained(recipe, model).trained for name, recipe in RECIPES.items() if name not in OF_SOME_MODELS
    }
    assert len(sizes) >= 19
    hidden, wide, blocks = 3584, 18944, 28
    assert sizes["lora"] == blocks * 3 * 256 * (hidden + wide)
    assert sizes["lora_attention"] == blocks * 256 * (2 * 2 * hidden + 2 * (hidden + 512))
    assert sizes["lora_all"] == sizes["lora"] + sizes["lora_attention"]
    assert count_trained(RECIPES["lora"], model).changed == sizes["mlp"] == 3 * blocks * hidden * wide


OF_SOME_MODELS = {
    "sa_softmax": "one kind of token mixer; use `sa_proj`",
    "sa_linear": "one kind of token mixer; use `sa_proj`",
    "ca_proj": "matches no parameter",
    "experts": "all dense; use `mlp`",
    "shared_experts": "all dense; use `mlp`",
    "dense_mlp": "all dense; use `mlp`",
    "router": "matches no parameter",
    "per_layer_embeddings": "matches no parameter",
    "audio": "matches no parameter",
}


@pytest.mark.parametrize("name", OF_SOME_MODELS)
def test_a_recipe_for_parts_that_a_model_lacks_is_refused_with_what_to_use(name: str) -> None:
    with pytest.raises(UserError, match=OF_SOME_MODELS[name]):
        count_trained(RECIPES[name], get_model("llava-onevision-7b"))


def test_the_last_blocks_are_counted_by_the_model_and_named_as_written() -> None:
    recipe = get_recipe({"name": "late", "train": ["llm.blocks.last-2.mlp"]})
    assert {role.split(".")[2] for role in trained_roles(recipe)} == {"1", "2"}
    assert {role.split(".")[2] for role in trained_roles(recipe, MadeModel())} == {"0", "1"}
    assert recipe.identity() == {"train": ["llm.blocks.last-2.mlp"]}
    assert resolve("vision.blocks.last-1.attention", TINY.role_counts(), model="tiny") == "vision.blocks.1-1.attention"


@pytest.mark.parametrize("selector", ["llm.blocks.last-4.mlp", "llm.blocks.last-0.mlp", "projector.last-1"])
def test_more_last_blocks_than_there_are_is_refused(selector: str) -> None:
    with pytest.raises(UserError, match=r"tiny-onevision has [03] blocks in"):
        trained_roles(Recipe(name="late", train=(selector,)))


def test_the_head_of_a_model_with_tied_embeddings_is_refused_with_the_reason() -> None:
    assert trained_roles(get_recipe("head"), get_model("tiny-next")) == {"llm.head"}
    with pytest.raises(UserError, match=r"head is tied: one tensor with llm\.embeddings.*Its roles: llm\.blocks"):
        count_trained(get_recipe("head"), TINY)


def test_what_a_recipe_does_not_use_is_not_in_its_identity() -> None:
    assert get_recipe("gate_up").identity() == {"train": ["llm.blocks.*.mlp.gate", "llm.blocks.*.mlp.up"]}


def test_rates_and_adapter_settings_are_identity_and_the_name_is_not() -> None:
    entries: list[Any] = [
        "lora",
        {"lora": {"rank": 8}},
        {"lora": {"rank": 8, "dora": True}},
        {"lora_attention": {"rank": 8}},
        {"vision": {"learning_rates": {"vision": 2e-6}}},
        {"vision": {"learning_rates": {"vision": 1e-6}}},
        "vision",
        "lora+projector",
    ]
    identities = [str(get_recipe(entry).identity()) for entry in entries]
    labels = [get_recipe(entry).label for entry in entries]
    assert len(set(identities)) == len(entries)
    assert labels == [
        "lora", "lora-r8", "dora-r8", "lora-r8", "vision-rates", "vision-rates", "vision", "lora-r256-projector",
    ]  # fmt: skip
    mine = get_recipe({"name": "mine", "adapter": {"rank": 8, "alpha": 32, "dropout": 0.05}})
    assert mine.identity() == get_recipe({"lora": {"rank": 8}}).identity()
    assert mine.label == "lora-r8"


def test_the_identity_of_adapters_does_not_change_by_accident() -> None:
    """If what they compute changes, raise their version; results on people's disks are found by these."""
    lora = {"kind": "lora", "version": 1, "alpha": 32.0, "dropout": 0.05, "dora": False, "rslora": False}
    assert RECIPES["lora"].identity() == {
        "train": [],
        "adapter": {**lora, "rank": 256, "targets": ["llm.blocks.*.mlp"]},
    }
    assert RECIPES["osf"].identity()["adapter"] == {
        "kind": "osf", "version": 2, "preserved": 0.5, "targets": ["llm.blocks.*.attention", "llm.blocks.*.mlp"],
    }  # fmt: skip
    assert RECIPES["moe"].identity() == {
        "train": [],
        "adapter": {"kind": "moe", "version": 1, "targets": ["llm.blocks.*.mlp"]},
    }


def test_the_papers_lora_is_the_default() -> None:
    assert RECIPES["lora"].adapter == LoRA(rank=256, alpha=32, dropout=0.05, targets=("llm.blocks.*.mlp",))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("lroa", "did you mean 'lora'"),
        ("lora+lora_all", "has 2 adapters"),
        ({"lora": {"rnak": 8}}, "did you mean 'rank'"),
        ({"lora": {"rank": 0}}, "lora.rank: must be greater than 0"),
        ({"lora": {"dropout": 1.0}}, "lora.dropout"),
        ({"lora": 8}, "are a mapping"),
        ({"sa_proj": {"rank": 8}}, "sa_proj: unknown setting 'rank'"),
        ({"name": "mine"}, "trains nothing"),
        ({"name": "mine", "train": []}, "trains nothing"),
        ({"name": "mine", "tarin": ["llm"]}, "did you mean 'train'"),
        ({"name": "mine", "train": "llm"}, "recipe mine.train"),
        ({"train": ["llm"], "adapter": None}, "name"),
        ({"name": "mine", "adapter": {"kind": "lore"}}, "did you mean 'lora'"),
        ({"name": "mine", "train": ["llm"], "learning_rates": {"llm": 0}}, "above 0"),
        ({"name": "mine", "train": ["llm"], "learning_rates": {"llm": "fast"}}, "learning_rates"),
    ],
    ids=str,
)
def test_a_bad_entry_is_told_what_is_allowed(entry: Any, said: str) -> None:
    with pytest.raises(UserError, match=said.replace(".", r"\.")):
        get_recipe(entry)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("lora", "rank 256 is above what a layer of 96 × 384 can hold; allowed: 1 to 96"),
        ({"lora_attention": {"rank": 32}}, "llm.blocks.0.attention.k: rank 32 .* of 24 × 96"),
        ({"name": "n", "adapter": {"rank": 4, "targets": ["llm.norm"]}}, "no linear layer matches llm.norm"),
        ({"name": "n", "adapter": {"rank": 4, "targets": ["llm.blokcs"]}}, "llm.blokcs"),
        ({"name": "n", "train": ["llm.blocks.0"], "adapter": {"rank": 4}}, "would train itself and have an adapter"),
        ({"name": "n", "train": ["llm"], "learning_rates": {"vision": 1e-6}}, "'vision' covers nothing that trains"),
        (
            {"name": "n", "train": ["llm"], "learning_rates": {"llm.blocks.*": 1e-6, "llm.blocks.0": 2e-6}},
            "has two, 1e-06 and 2e-06",
        ),
    ],
    ids=str,
)
def test_what_does_not_fit_the_model_is_refused_at_the_door(tmp_path: Path, entry: Any, said: str) -> None:
    import json

    text = SWEEP.replace("recipe: [sa_proj, gate_up]", f"recipe: [{json.dumps(entry)}]")
    with pytest.raises(UserError, match=said) as refused:
        load_sweep(write_sweep(tmp_path, text))
    assert "small.yaml: grids[0].recipe" in str(refused.value)


def test_recipes_of_all_forms_stand_side_by_side_in_a_sweep(tmp_path: Path) -> None:
    recipes = """[sa_proj, gate_up+projector, {lora: {rank: 8, alpha: 16}},
      {name: late, train: [llm.blocks.last-2.mlp, vision], learning_rates: {vision: 2.0e-6}},
      {name: lora8, train: [projector], adapter: {rank: 8, alpha: 16, targets: [llm.blocks.*.attention]}}]"""
    sweep = load_sweep(write_sweep(tmp_path, SWEEP.replace("[sa_proj, gate_up]", recipes)))
    sizes = {trial.axes["recipe"]: trial.trained_parameters() for trial in sweep.trials}
    counts = TINY.role_counts()
    assert list(sizes) == ["sa_proj", "gate_up+projector", "lora(rank=8,alpha=16)", "late", "lora8"]
    assert sizes["lora(rank=8,alpha=16)"] == 3 * 3 * 8 * (96 + 384)
    assert sizes["lora8"] == counts["projector"] + 3 * 8 * 2 * ((96 + 96) + (96 + 24))


def test_the_more_exact_learning_rate_holds() -> None:
    recipe = get_recipe({"name": "n", "train": ["llm"], "learning_rates": {"llm": 1e-6, "llm.blocks.last-1.mlp": 3e-6}})
    roles = TINY.role_counts()
    rates = recipe.rates(trained_roles(recipe), roles, model="tiny")
    assert rates["llm.blocks.2.mlp.up"] == 3e-6 and rates["llm.blocks.1.mlp.up"] == 1e-6
    assert set(rates) == {role for role in roles if role.startswith("llm.")}


@pytest.mark.parametrize(
    "name", ["tiny-onevision", "tiny-next", "tiny-qwen", "qwen3-vl-2b", "gemma-3-4b", "qwen3.5-9b"]
)
def test_shipped_shapes_are_those_of_the_model_fused_layers_included(name: str) -> None:
    lmm = get_model(name)
    assert linear_shapes(lmm) == shapes_of(lmm, meta_of(lmm))


def test_shapes_of_every_model_ship_that_has_an_inventory() -> None:
    """Of a mixture the routed experts are not linear layers; the shared one is."""
    shapes = {name: linear_shapes(get_model(name)) for name in model_names() if name.startswith("tiny-") or ships(name)}
    assert len(shapes) >= 20
    assert all(found.get("llm.blocks.0.mlp.gate") or found["llm.blocks.0.mlp.gate.shared"] for found in shapes.values())


def test_a_model_without_configuration_says_that_it_has_no_shapes() -> None:
    with pytest.raises(UserError, match="does not list the shapes"):
        count_trained(RECIPES["lora"], MadeModel())


def test_a_recipe_named_as_a_mitigation_is_told_where_it_belongs() -> None:
    from lmmcl.methods import get_mitigation

    with pytest.raises(UserError, match=r"'moe' is a recipe, not a mitigation; allowed in `recipe: \[moe\]`"):
        get_mitigation("moe")


def test_a_mitigation_named_as_a_recipe_is_told_where_it_belongs() -> None:
    for spec in ("mr_lora", {"mr_lora": {"examples": 5}}, "sa_proj+lwf"):
        with pytest.raises(
            UserError, match=r"is a mitigation, not a recipe; allowed in `mitigation: \[(mr_lora|lwf)\]`"
        ):
            get_recipe(spec)


def test_the_name_of_a_recipe_over_4_bits_says_which_setting_of_its_base_is_other() -> None:
    single = get_recipe({"qlora": {"base": {"quantize": "nf4", "double_quant": False}}})
    first = get_recipe({"qlora": {"base": {"quantize": "nf4", "layers": ["llm.blocks.0", "llm.blocks.1"]}}})
    assert single.name == "qlora(base=nf4 double_quant False)"
    assert first.name == "qlora(base=nf4 layers llm.blocks.0 + llm.blocks.1)"
    assert first.base is not None and first.base.describe() == "nf4 layers llm.blocks.0 + llm.blocks.1"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ({"quantize": "nf4", "double_quant": True}, "nf4"),
        ({"quantize": "nf4", "layers": ["llm.blocks"]}, "nf4"),
        ({"layers": ["llm.blocks.1", "llm.blocks.0"], "quantize": "nf4"}, "nf4 layers llm.blocks.0 + llm.blocks.1"),
        ({"double_quant": False, "quantize": "nf4"}, "nf4 double_quant False"),
    ],
)
def test_one_base_has_one_name_however_it_is_written(written: dict[str, object], shown: str) -> None:
    recipe = get_recipe({"qlora": {"base": written, "rank": 4}})
    assert recipe.name == f"qlora(base={shown},rank=4)"
    assert recipe.base is not None and recipe.base.describe() == shown
