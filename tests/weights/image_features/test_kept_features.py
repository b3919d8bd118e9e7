"""Pictures are encoded once for all trials, stages, epochs, seeds and evaluations, and only where the tower is the base's."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from stage_parts import SAID, made_skill, stage

from lmmcl.config.cluster import Cluster, TrainingPlacement
from lmmcl.config.settings import Evaluation
from lmmcl.ledger import Ledger
from lmmcl.models import get_model
from lmmcl.models.processing.encode import encode
from lmmcl.models.processing.padding import pad
from lmmcl.runner.execute import compute
from lmmcl.steps import Evaluate, Pretrained
from lmmcl.tasks.examples import Example, ask
from lmmcl.tasks.skills import Benchmark
from lmmcl.training.finetune import finetune
from lmmcl.weights.checkpoint import load
from lmmcl.weights.image_features import feature_store, kept_features
from lmmcl.weights.image_features.feature_store import FeatureStore
from lmmcl.weights.image_features.kept_features import attach_features

SIZES = [(32, 32), (64, 32), (32, 64), (48, 40)]
WORDS = ("red", "red circle", "small red circle left of blue square")


@pytest.fixture(autouse=True)
def no_stores() -> Iterator[None]:
    feature_store._STORES.clear()
    yield
    feature_store._STORES.clear()


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path / "store"))


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each call of a model was about that may read features."""
    counts: list[int] = []
    take_apart = kept_features.take_apart

    def seen(*args: Any) -> Any:
        pictures = take_apart(*args)
        counts.append(len(pictures or ()))
        return pictures

    monkeypatch.setattr(kept_features, "take_apart", seen)
    return counts


def rows(count: int, shade: int = 40) -> list[Example]:
    """Pictures of several sizes; the last is that of the first row again."""
    pictures = [Image.new("RGB", SIZES[n % 4], (35 * n, shade, 90)) for n in range(count - 1)]
    return [
        ask(str(n), "What is shown?", WORDS[n % 3], picture, answers=SAID)
        for n, picture in enumerate([*pictures, pictures[0]])
    ]


def computed(model: Any, folder: Path, features: Path | None) -> dict[str, list[Any]]:
    """Two seeds of two epochs each in other micro-batches, and an evaluation of each on the rows of the skill and others: losses,
    weights and answers."""
    ledger = Ledger(str(folder))
    skill = made_skill("pictures of several sizes", rows(7))  # a process remembers encodings by the names of skills
    questions = [*rows(7)[:3], *rows(4, shade=200)]
    benchmark = Benchmark("pictures that are asked about", 1, "contains", load=lambda: questions)
    results: dict[str, list[Any]] = {"losses": [], "weights": [], "answers": [], "features": []}
    for seed in (0, 1):
        kept = {"features": str(features)} if features else {}
        cluster = Cluster.model_validate(
            {"training": {"micro_batch_size": 1 + seed, **kept}, "evaluation": {"batch_size": 3 + seed, **kept}}
        )
        step = stage(parent=Pretrained(model), skill=skill, max_steps=None, epochs=2, seed=seed)
        scores = Evaluate(step, benchmark, Evaluation(precision="fp32"))
        for one in (step, scores):
            compute([one], ledger, cluster, lambda *_: None)
        record, asked = ledger.find(step), ledger.find(scores)
        assert record is not None and asked is not None
        with ledger.opened(step.path, "curve.jsonl") as file:
            results["losses"] += [json.loads(line)["loss"] for line in file.read_text().splitlines()]
        results["features"] += [one.fields.get("image_features") for one in (record, asked)]
        results["weights"].append(record.files["delta.safetensors"]["sha256"])
        results["answers"].append((asked.files["samples.jsonl"]["sha256"], asked["sample_scores"]))
    return results


@pytest.mark.parametrize("name", ["tiny-onevision", "tiny-next", "tiny-qwen", "llava"])
def test_a_picture_is_encoded_once_for_all_epochs_seeds_and_evaluations(
    name: str, tmp_path: Path, shown: list[int]
) -> None:
    if name == "llava":  # of a local folder
        sys.path.insert(0, str(Path(__file__).parents[2]))
        from models.small_families import llava, save

        name = str(save(tmp_path / "model", *llava()))
    model = get_model(name)
    plain = computed(model, tmp_path / "plain", None)
    kept = computed(model, tmp_path / "kept", tmp_path / "features")
    assert plain.pop("features") == [None] * 4
    counts = kept.pop("features")
    assert [count["encoded"] for count in counts] == [6, 3, 0, 0], "of the skill, and those that are only asked about"
    assert sum(count["read"] for count in counts) == sum(shown) - 9 > 2 * (2 * 7 + 6)
    assert kept["losses"] == pytest.approx(plain["losses"], rel=1e-5, abs=1e-6) and len(kept["losses"]) > 4
    assert kept["answers"] == plain["answers"]

    if name in ("tiny-next", "tiny-qwen"):  # for the store all features are alike
        return
    feature_store._STORES.clear()  # as another process, which finds the folder
    again = computed(model, tmp_path / "again", tmp_path / "features")
    assert {count["encoded"] for count in again.pop("features")} == {0}
    assert again == kept, "not a bit depends on what was kept before"


def test_another_micro_batch_changes_no_feature_and_a_record_says_what_was_read(tmp_path: Path) -> None:
    records = []
    for number, micro in enumerate((1, 4)):
        store = Ledger(str(tmp_path / f"store{number}"))
        step = stage(skill=made_skill("few", rows(5)), max_steps=2)
        placement = TrainingPlacement(features=str(tmp_path / "features"), micro_batch_size=micro)
        records.append(finetune(step, store, placement).fields["image_features"])
    assert [record["encoded"] for record in records] == [4, 0]
    assert records[0]["read"] > 4 and records[1]["read"] > 8


@pytest.mark.parametrize(
    "recipe",
    [
        "vision",
        "projector",
        {"name": "both", "adapter": {"kind": "lora", "rank": 2, "alpha": 4, "targets": ["vision", "llm"]}},
    ],
    ids=["tower", "projector", "adapter on the tower"],
)
def test_a_tower_that_learns_keeps_nothing(recipe: Any, tmp_path: Path, ledger: Ledger) -> None:
    placement = TrainingPlacement(features=str(tmp_path / "kept"))
    record = finetune(stage(recipe=recipe, max_steps=1), ledger, placement)
    assert "image_features" not in record.fields and not list((tmp_path / "kept").rglob("*.safetensors"))


def test_a_tower_that_an_earlier_stage_trained_keeps_nothing(tmp_path: Path, ledger: Ledger) -> None:
    first = stage(recipe="projector", max_steps=1)
    second = stage(recipe="sa_proj", max_steps=1, parent=first)
    for step in (first, second):
        record = finetune(step, ledger, TrainingPlacement(features=str(tmp_path / "kept")))
        assert "image_features" not in record.fields


def loaded_with(store: FeatureStore, precision: str = "fp32") -> tuple[Any, Any, dict[str, Any]]:
    lmm = get_model("tiny-onevision")
    loaded = load(Pretrained(lmm), Ledger("/nowhere"), precision, "cpu", "sdpa", shared=True)
    features = attach_features(lmm, loaded, store)
    processor = lmm.load_processor()
    batch = pad(processor, [encode(processor, example, with_answer=True) for example in rows(4)[:3]])
    batch.pop("labels")
    return loaded.model, features, batch


@torch.inference_mode()
def test_a_damaged_pack_is_made_again_and_another_precision_or_mode_is_another_name(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, 1.0)
    model, features, batch = loaded_with(store)
    before = model(**batch).logits
    store.write()
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(b"cut")
    store._recent.clear()
    assert torch.equal(model(**batch).logits, before) and (features.read, features.encoded) == (0, 6)
    store.write()
    store._recent.clear()
    assert torch.equal(model(**batch).logits, before) and (features.read, features.encoded) == (3, 6)
    with torch.autocast("cpu", torch.bfloat16):
        model(**batch)
    assert (features.read, features.encoded) == (3, 9)
    other, its, _ = loaded_with(store, "bf16")
    other(**batch)
    assert (its.read, its.encoded) == (0, 3)
    features.vision[0].train()
    model(**batch)
    assert (features.read, features.encoded) == (3, 9), "a tower in training mode may have dropout"


def test_features_made_in_inference_mode_are_read_in_training(tmp_path: Path) -> None:
    model, features, batch = loaded_with(FeatureStore(tmp_path, 1.0))
    with torch.inference_mode():
        model(**batch)
    for parameter in model.lm_head.parameters():
        parameter.requires_grad_(True)
    model(**batch).logits.sum().backward()
    assert (features.read, features.encoded) == (3, 3)


@torch.inference_mode()
def test_a_full_folder_keeps_no_more_and_a_copy_of_the_model_works_out_its_own(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, 1e-9)
    model, features, batch = loaded_with(store)
    before = model(**batch).logits
    store.write()
    assert not list(tmp_path.rglob("*.safetensors")) and features.encoded == 3
    twin = copy.deepcopy(model)
    for parameter in twin.model.multi_modal_projector.parameters():
        parameter.data.zero_()
    assert not torch.equal(twin(**batch).logits, before)
    assert torch.equal(model(**batch).logits, before) and features.read == 3


def test_stores_are_one_a_folder(tmp_path: Path) -> None:
    stores = [feature_store.feature_store(str(tmp_path), 1.0) for _ in range(2)]
    assert stores[0] is stores[1]
