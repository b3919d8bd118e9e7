"""Equal work has an equal name, different work another."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from made import MadeModel, made_benchmark, made_skill, made_trial

from lmmcl.config.settings import Evaluation
from lmmcl.methods.recipes.recipe import Recipe
from lmmcl.models import get_model
from lmmcl.models.architecture import dropout_parts
from lmmcl.steps import Evaluate
from lmmcl.steps.keys import IdentityTexts, canonical_json, key_of, key_with

GOLDEN = Path(__file__).parent.parent / "golden" / "keys.json"


def keys_of_a_known_trial() -> dict[str, str]:
    trials = [
        made_trial(),
        made_trial("sa_proj", {"wise_ft": {"alpha": 0.5}}),
        made_trial("gate_up+projector", seed=3, learning_rate=1e-3),
    ]
    return {step.path.rsplit("-", 1)[0]: step.key for trial in trials for step in trial.steps().values()}


def test_keys_do_not_change_by_accident() -> None:
    assert keys_of_a_known_trial() == json.loads(GOLDEN.read_text()), (
        "Keys changed: results on people's disks would no longer be found. If a step now computes something else, raise "
        "its version (or KEY_VERSION) and write the new keys to tests/golden/keys.json; otherwise find what leaked into the identity."
    )


def test_a_key_that_is_put_together_from_texts_is_that_of_the_identity() -> None:
    trials = [
        made_trial(),
        made_trial("sa_proj", {"lwf": {"weight": 1.0, "temperature": 2.0}}),
        made_trial("gate_up+projector", {"wise_ft": {"alpha": 0.5}}, seed=3, learning_rate=1e-3, weight_decay=0.1),
    ]
    steps = [step for trial in trials for step in trial.steps().values()]
    assert {step.kind for step in steps} == {"pretrained", "finetune", "merge", "evaluate"}
    for step in steps:
        assert step.key == key_of(step.identity())


def test_settings_that_stand_where_others_stood_in_memory_have_a_text_of_their_own() -> None:
    texts = IdentityTexts()
    assert len({texts.text_of(Evaluation(limit=limit)) for limit in range(1, 100)}) == 99


def test_a_field_cannot_pass_for_the_place_of_another() -> None:
    assert key_with({"a": 1}, {"b": '{"c":2}'}) == key_of({"a": 1, "b": {"c": 2}})
    with pytest.raises(ValueError, match="a field has it too"):
        key_with({"a": "\ue000 b"}, {"b": "1"})


def test_the_order_in_which_fields_are_written_does_not_matter() -> None:
    assert key_of({"a": 1, "b": [1.5, None]}) == key_of({"b": (1.5, None), "a": 1})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1: 2}, {1, 2}, object(), b"x"])
def test_what_has_no_canonical_text_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="canonical"):
        canonical_json({"field": value})


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 1e-4},
        {"epochs": 2},
        {"global_batch_size": 8},
        {"precision": "fp32"},
        {"seed": 1},
        {"recipe": "gate_up"},
        {"skills": ("second", "first")},
        {"model": MadeModel(revision="2")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_two_papers_would_call_another_experiment_changes_the_key(change: dict) -> None:
    assert made_trial(**change).key != made_trial().key


def test_a_recipes_name_does_not_change_the_key_but_its_selectors_do() -> None:
    trial = made_trial("sa_proj")
    renamed = dataclasses.replace(trial, recipe=Recipe(name="mine", train=trial.recipe.train))
    other = dataclasses.replace(trial, recipe=Recipe(name="sa_proj", train=("llm.blocks.0.attention",)))
    assert renamed.key == trial.key
    assert renamed.stages[1].checkpoint.path == trial.stages[1].checkpoint.path
    assert other.key != trial.key


def test_a_benchmark_that_is_added_later_leaves_all_other_keys_as_they_were() -> None:
    before, after = made_trial().steps(), made_trial(held_out=("kept", "new")).steps()
    assert set(before) < set(after)
    assert {step.label for key, step in after.items() if key not in before} == {"new"}


def test_a_version_that_is_raised_changes_the_key() -> None:
    checkpoint = made_trial().stages[0].checkpoint
    keys = {Evaluate(checkpoint, made_benchmark("b", version=version), Evaluation()).key for version in (1, 2)}
    assert len(keys) == 2
    assert made_skill("s", 1).identity() != made_skill("s", 2).identity()


def test_trials_with_the_same_beginning_share_its_steps() -> None:
    one, two = made_trial(skills=("first", "second")).steps(), made_trial(skills=("first", "third")).steps()
    shared = {one[key].kind for key in set(one) & set(two)}
    assert shared == {"pretrained", "finetune", "evaluate"}


def test_all_settings_of_a_merge_share_one_fine_tune() -> None:
    half, most = (made_trial(mitigation={"wise_ft": {"alpha": alpha}}, skills=("first",)) for alpha in (0.5, 0.9))
    tuned = [trial.stages[1].checkpoint.tuned.key for trial in (half, most)]  # type: ignore[union-attr]
    assert tuned[0] == tuned[1]
    assert half.key != most.key


def test_a_merged_stage_is_where_the_next_one_starts() -> None:
    trial = made_trial(mitigation={"wise_ft": {"alpha": 0.5}})
    second = trial.stages[2].checkpoint
    assert second.anchor.key == trial.stages[1].checkpoint.key  # type: ignore[union-attr]
    assert second.tuned.parent.key == trial.stages[1].checkpoint.key  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("parts", "recipe", "own"),
    [
        ((), "sa_proj", False),
        (("qformer",), "sa_proj", True),
        (("vision",), "vision", False),
        (("vision",), "vision+projector", False),
        (("vision", "llm"), "vision", True),
        (("*",), "vision", True),
        (("*", "vision"), "full", False),
    ],
)
def test_a_stage_that_leaves_a_part_with_dropout_frozen_has_a_key_of_its_own(
    parts: tuple[str, ...], recipe: str, own: bool
) -> None:
    class Dropping(MadeModel):
        dropout_parts = parts  # type: ignore[assignment]

    plain, other = (made_trial(recipe, model=model) for model in (MadeModel(), Dropping()))
    assert (plain.key != other.key) is own
    assert plain.stages[0].checkpoint.key == other.stages[0].checkpoint.key


def test_a_part_has_dropout_by_its_configuration_or_by_what_the_family_ships_with() -> None:
    assert dropout_parts({"model_type": "x", "vision_config": {"attention_dropout": 0.0}}) == ()
    assert dropout_parts({"vision_config": {"attention_dropout": 0.1}, "text_config": {"x": 1}}) == ("vision",)
    assert dropout_parts({"dropout": 0.1, "text_config": {"deep": {"hidden_dropout": 0.2}}}) == ("*", "llm")
    assert dropout_parts({"qformer_config": {}}, ["qformer"]) == ("qformer",)
    assert dropout_parts({"qformer_config": {"hidden_dropout_prob": 0.0}}, ["qformer"]) == ()
    assert get_model("instructblip-vicuna-7b").dropout_parts == ("qformer",)
    assert get_model("tiny-onevision").dropout_parts == ()
