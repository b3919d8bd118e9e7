"""A word of another tool, or one at the wrong level, is answered with ours and its place."""

from __future__ import annotations

from typing import Any

import pytest

from lmmcl import synonyms
from lmmcl.config import cluster, data_entries, search_settings, sweep_file
from lmmcl.errors import UserError, unknown, unknown_key
from lmmcl.measures import MEASURES
from lmmcl.methods import get_mitigation, get_recipe
from lmmcl.methods.lookup import mitigation_names
from lmmcl.methods.recipes.recipe import KINDS, RECIPES, Recipe
from lmmcl.models import ModelSettings
from lmmcl.registry import members
from lmmcl.tasks import benchmark_names
from lmmcl.tasks.metrics.metric import metric_names

CLASSES: dict[tuple[str, str], Any] = {
    (synonyms.SWEEP, ""): sweep_file.SweepFile,
    (synonyms.SWEEP, "training"): sweep_file.Training,
    (synonyms.SWEEP, "evaluation"): sweep_file.Evaluation,
    (synonyms.SWEEP, "benchmarks"): sweep_file.Benchmarks,
    (synonyms.SWEEP, "search"): search_settings.Search,
    (synonyms.CLUSTER, ""): cluster.Cluster,
    (synonyms.CLUSTER, "ray"): cluster.RaySettings,
    (synonyms.CLUSTER, "training"): cluster.TrainingPlacement,
    (synonyms.CLUSTER, "evaluation"): cluster.EvaluationPlacement,
    (synonyms.CLUSTER, "claims"): cluster.ClaimSettings,
}


def test_the_places_of_keys_are_those_of_the_settings() -> None:
    for (file, section), kind in CLASSES.items():
        assert synonyms.SECTIONS[file][section].split() == list(kind.model_fields), section
    axes = set(sweep_file.Grid.model_fields) - set(sweep_file.Training.model_fields)
    assert set(synonyms.SECTIONS[synonyms.SWEEP]["grids[…]"].split()) == axes
    written = {(file, section) for file, sections in synonyms.SECTIONS.items() for section in sections}
    assert written == {*CLASSES, (synonyms.SWEEP, "grids[…]")}


def test_every_word_leads_to_a_name_that_exists() -> None:
    members_of = {"methods": "MITIGATIONS", "tasks": "PROBES"}
    kinds = [each for room, what in members_of.items() for each in members(f"lmmcl.{room}", what).values()]
    kinds += [
        *CLASSES.values(),
        *KINDS.values(),
        Recipe,
        data_entries.LocalSkillEntry,
        data_entries.JudgeEntry,
        sweep_file.Grid,
    ]
    kinds += [ModelSettings, search_settings.Limit, search_settings.Asha, search_settings.Optuna]
    known = {name for kind in kinds for name in kind.model_fields}
    known |= {*RECIPES, *mitigation_names(), *benchmark_names(), *metric_names(), *MEASURES}
    known |= {"bf16", "fp16", "fp32", "ddp", "deepspeed", "flash_attention_2"}
    assert not set(synonyms._TARGETS) - known


@pytest.mark.parametrize(
    ("make", "value", "ours"),
    [
        (get_recipe, {"lora": {"r": 8}}, "'rank'"),
        (get_recipe, {"lora": {"lora_alpha": 8}}, "'alpha'"),
        (get_recipe, {"lora": {"target_modules": ["q"]}}, "'targets'"),
        (get_recipe, {"lora": {"learning_rate": 1e-4}}, "this is training.learning_rate (or an axis of a grid) in the sweep file"),
        (get_recipe, "attention", "'sa_proj'"),
        (get_recipe, "Full-Fine-Tuning", "'full'"),
        (get_mitigation, {"lwf": {"lambda": 1.0}}, "did you mean 'weight'?"),
        (get_mitigation, "rehearsal", "'replay'"),
        (get_mitigation, "EWC", "'ewc'"),
    ],
)  # fmt: skip
def test_a_word_of_another_tool_is_answered_with_ours(make: Any, value: Any, ours: str) -> None:
    with pytest.raises(UserError) as caught:
        make(value)
    assert ours in str(caught.value)


def test_a_key_at_the_wrong_level_is_answered_with_its_place() -> None:
    top = sweep_file.SweepFile.model_fields
    assert "this is training.workers in the cluster file" in unknown_key("key", "workers", top)
    assert "this is training.learning_rate (or an axis of a grid) in the sweep file" in unknown_key("key", "lr", top)
    assert "this is benchmarks.held_out in the sweep file" in unknown_key("key", "heldout", top)
    placement = cluster.TrainingPlacement.model_fields
    assert "this is training.epochs" in unknown_key("key", "num_train_epochs", placement)
    assert "did you mean 'micro_batch_size'" in unknown_key("key", "per_device_train_batch_size", placement)


def test_a_setting_of_a_model_is_answered_with_where_it_stands() -> None:
    training = sweep_file.Training.model_fields
    for word in ("max_pixels", "image_max_pixels"):
        assert "for training and evaluation alike: models: {NAME: {max_pixels: 262144}}" in unknown_key(
            "key", word, training
        )
    assert "models: {NAME: {square: true}}" in unknown_key("key", "image_aspect_ratio", training)
    assert "did you mean 'system'" in unknown_key("key", "system_prompt", ModelSettings.model_fields)


def test_a_long_list_of_names_says_how_to_list_them_all() -> None:
    assert unknown("metric", "x", metric_names()).endswith("more (`lmmcl list metrics`)")
    assert "did you mean 'text_vqa'" in unknown("benchmark", "TextVQA", benchmark_names())
