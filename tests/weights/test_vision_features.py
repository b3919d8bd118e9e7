"""Image features that are read back: the same losses, weights and answers to the bit, and only where the tower is the base's."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from made import write_sweep
from rich.console import Console
from stage_parts import made_skill, shades, stage

from lmmcl.config.cluster import Cluster, TrainingPlacement
from lmmcl.config.sweep import load_sweep
from lmmcl.ledger import Ledger
from lmmcl.models import get_model
from lmmcl.models.processing.encode import encode
from lmmcl.models.processing.padding import pad
from lmmcl.planning.plan import make_plan
from lmmcl.runner.run import run_sweep
from lmmcl.search.run_context import RunContext
from lmmcl.steps import Pretrained
from lmmcl.training.finetune import finetune
from lmmcl.weights import vision_features
from lmmcl.weights.checkpoint import load
from lmmcl.weights.vision_features import FeatureStore, attach_features, feature_store

SWEEP = """
name: features
orders: {main: [counting, clock]}
benchmarks: {held_out: [colour]}
training: {max_steps: 2, global_batch_size: 4, learning_rate: 3.0e-3, precision: fp32}
evaluation: {precision: fp32, limit: 6}
grids:
  - {model: [MODEL], recipe: [sa_proj, gate_up, projector], seed: [0]}
"""


@pytest.fixture(autouse=True)
def no_stores() -> Iterator[None]:
    vision_features._STORES.clear()
    yield
    vision_features._STORES.clear()


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path / "store"))


def placed(folder: Path, **more: Any) -> TrainingPlacement:
    return TrainingPlacement(features=str(folder), **more)


def swept(folder: Path, model: str, features: Path | None) -> tuple[Ledger, Any]:
    folder.mkdir()
    ledger = Ledger(str(folder / "store"))
    sweep = load_sweep(write_sweep(folder, SWEEP.replace("MODEL", model)))
    kept = {"features": str(features)} if features else {}
    cluster = Cluster.model_validate({"training": kept, "evaluation": {"batch_size": 4, **kept}})
    outcome = run_sweep(RunContext.resolve(sweep, ledger), cluster, console=Console(quiet=True), inline=True)
    assert outcome.failures == {}
    return ledger, sweep


def results(ledger: Ledger, sweep: Any) -> dict[str, Any]:
    """Weights of every stage, its curve of losses, and every answer, as stored."""
    stored: dict[str, Any] = {}
    for step in sweep.steps.values():
        record = ledger.find(step)
        assert record is not None
        if step.kind == "finetune":
            with ledger.opened(step.path, "curve.jsonl") as file:
                rows = [line.partition('"updates_per_second"')[0] for line in file.read_text().splitlines()]
            stored[step.path] = (record.files["delta.safetensors"]["sha256"], rows)
        elif step.kind == "evaluate":
            stored[step.path] = (record.files["samples.jsonl"]["sha256"], record["sample_scores"])
    return stored


@pytest.mark.parametrize("model", ["tiny-onevision", "tiny-qwen"])
def test_a_sweep_with_kept_features_has_the_losses_weights_and_answers_of_one_without(
    model: str, tmp_path: Path
) -> None:
    plain = swept(tmp_path / "plain", model, None)
    first = swept(tmp_path / "first", model, tmp_path / "features")
    vision_features._STORES.clear()  # as another process, which finds the folder
    again = swept(tmp_path / "again", model, tmp_path / "features")
    assert results(*plain) == results(*first) == results(*again)
    counts = {}
    for number, (ledger, sweep) in enumerate((first, again)):
        stages = [step for step in sweep.steps.values() if step.kind == "finetune"]
        counts[number] = {step.label: ledger.find(step).fields.get("image_features") for step in stages}  # type: ignore[union-attr]
    for name, row in counts[0].items():  # a stage also shows pictures to the checks of its first batch
        assert (row is None) == ("projector" in name), "stages of the projector make their own"
        if row:
            assert row["read" if "gate_up" in name else "encoded"] > 0 and (
                "gate_up" not in name or row["encoded"] == 0
            )
    assert {row["encoded"] for row in counts[1].values() if row} == {0}


def test_llava_of_a_local_folder_reads_its_features(tmp_path: Path, ledger: Ledger) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from models.small_families import llava, save

    parent = Pretrained(get_model(str(save(tmp_path / "model", *llava()))))
    steps = [stage(parent=parent, recipe=recipe, max_steps=2, skill=made_skill()) for recipe in ("sa_proj", "gate_up")]
    curves = []
    for folder in (None, tmp_path / "features"):
        store = Ledger(str(tmp_path / f"store-{folder is None}"))
        for step in steps:
            record = finetune(step, store, TrainingPlacement() if folder is None else placed(folder))
            curves.append(
                (record.files["delta.safetensors"]["sha256"], record["loss"], record.fields.get("image_features"))
            )
    assert [row[:2] for row in curves[:2]] == [row[:2] for row in curves[2:]]
    assert [row[2] for row in curves[:3]] == [None, None, {"read": 2, "encoded": 4}]
    assert curves[3][2] == {"read": 6, "encoded": 0}


@pytest.mark.parametrize(
    ("recipe", "model"),
    [
        ("vision", "tiny-onevision"),
        ("projector", "tiny-onevision"),
        (
            {"name": "both", "adapter": {"kind": "lora", "rank": 2, "alpha": 4, "targets": ["vision", "llm"]}},
            "tiny-onevision",
        ),
        ("sa_proj", "tiny-next"),  # its family is not one of those
    ],
    ids=["tower", "projector", "adapter on the tower", "family"],
)
def test_a_tower_that_learns_and_other_families_keep_nothing(
    recipe: Any, model: str, tmp_path: Path, ledger: Ledger
) -> None:
    record = finetune(
        stage(parent=Pretrained(get_model(model)), recipe=recipe, max_steps=1), ledger, placed(tmp_path / "kept")
    )
    assert "image_features" not in record.fields and not list((tmp_path / "kept").rglob("*.safetensors"))


def test_a_tower_that_an_earlier_stage_trained_keeps_nothing(tmp_path: Path, ledger: Ledger) -> None:
    first = stage(recipe="projector", max_steps=1)
    second = stage(recipe="sa_proj", max_steps=1, parent=first)
    for step in (first, second):
        record = finetune(step, ledger, placed(tmp_path / "kept"))
        assert "image_features" not in record.fields


def loaded_with(store: FeatureStore, precision: str = "fp32") -> tuple[Any, Any, dict[str, Any]]:
    lmm = get_model("tiny-onevision")
    loaded = load(Pretrained(lmm), Ledger("/nowhere"), precision, "cpu", "sdpa", shared=True)
    features = attach_features(lmm, loaded, store)
    processor = lmm.load_processor()
    batch = pad(processor, [encode(processor, example, with_answer=True) for example in shades(3)])
    batch.pop("labels")
    return loaded.model, features, batch


@torch.inference_mode()
def test_a_damaged_file_is_made_again_and_another_batch_precision_or_mode_is_another_name(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, 1.0)
    model, features, batch = loaded_with(store)
    before = model(**batch).logits
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(b"cut")
    store._recent.clear()
    assert torch.equal(model(**batch).logits, before) and (features.read, features.encoded) == (0, 2)
    store._recent.clear()
    assert torch.equal(model(**batch).logits, before) and (features.read, features.encoded) == (1, 2)
    two = {name: tensor[:2] for name, tensor in batch.items()}
    model(**two)
    assert features.encoded == 3
    other, its, _ = loaded_with(store, "bf16")
    other(**batch)
    assert (its.read, its.encoded) == (0, 1)
    features.vision[0].train()
    model(**batch)
    assert (features.read, features.encoded) == (1, 3), "a tower in training mode may have dropout"


@torch.inference_mode()
def test_a_full_folder_keeps_no_more_and_a_copy_of_the_model_works_out_its_own(tmp_path: Path) -> None:
    model, features, batch = loaded_with(FeatureStore(tmp_path, 1e-9))
    before = model(**batch).logits
    assert not list(tmp_path.rglob("*.safetensors")) and features.encoded == 1
    twin = copy.deepcopy(model)
    for parameter in twin.model.multi_modal_projector.parameters():
        parameter.data.zero_()
    assert not torch.equal(twin(**batch).logits, before)
    assert torch.equal(model(**batch).logits, before) and features.read == 1


def test_stores_are_one_a_folder(tmp_path: Path) -> None:
    assert feature_store(str(tmp_path), 1.0) is feature_store(str(tmp_path), 1.0)


def test_a_plan_says_which_stages_and_evaluations_read_features_that_others_make(tmp_path: Path) -> None:
    sweep = load_sweep(write_sweep(tmp_path, SWEEP.replace("MODEL", "tiny-onevision")))
    ledger = Ledger(str(tmp_path / "store"))
    kept = {"features": str(tmp_path / "features")}
    notes = make_plan(sweep, ledger, Cluster.model_validate({"training": kept, "evaluation": kept})).notes
    assert (
        "image features: 2 of 6 stages read those that 2 others make; 2 make their own: their tower or projector is trained"
        in notes
    )
    assert any(
        note.startswith("image features: 12 of 21 evaluations read those that 3 others make; 6") for note in notes
    )
    assert not [note for note in make_plan(sweep, ledger, Cluster()).notes if "image features" in note]
