"""Features of batches that come again: the tower runs once, results are the same to the bit, and only a base's tower is trusted."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from stage_parts import made_skill, stage

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.ledger import Ledger
from lmmcl.models import get_model
from lmmcl.models.processing.encode import encode
from lmmcl.models.processing.padding import pad
from lmmcl.steps import Pretrained
from lmmcl.training.finetune import finetune
from lmmcl.weights.checkpoint import load
from lmmcl.weights.image_features import frozen_tower, repeated_batches
from lmmcl.weights.image_features.repeated_batches import RECENT, RecentFeatures, remember_features


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    RECENT.clear()
    yield
    RECENT.clear()


def opened() -> tuple[Any, dict[str, Any], list[int]]:
    """(loaded checkpoint, a batch of four pictures, calls of its vision tower)."""
    lmm = get_model("tiny-onevision")
    loaded = load(Pretrained(lmm), Ledger("/nowhere"), "fp32", "cpu", "sdpa", shared=True)
    calls: list[int] = []
    loaded.model.model.vision_tower.register_forward_hook(lambda *_: calls.append(1))
    processor = lmm.load_processor()
    return loaded, pad(processor, [encode(processor, one, with_answer=False) for one in made_skill().load()[:4]]), calls


def logits(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        return model(**{name: value.clone() for name, value in batch.items()}).logits


def test_a_batch_that_comes_again_is_not_seen_again_and_gives_the_same_logits() -> None:
    lmm = get_model("tiny-onevision")
    loaded, batch, calls = opened()
    own = logits(loaded.model, batch)
    assert remember_features(lmm, loaded)
    other, _, more_calls = opened()  # as another trial loads it
    assert remember_features(lmm, other)
    assert torch.equal(logits(loaded.model, batch), own) and len(calls) == 2
    assert torch.equal(logits(other.model, batch), own) and more_calls == []
    batch["pixel_values"][0, 0, 0, 0] += 1
    assert not torch.equal(logits(other.model, batch), own) and len(more_calls) == 1


def test_what_was_made_for_answers_is_not_used_for_learning() -> None:
    loaded, batch, calls = opened()
    remember_features(get_model("tiny-onevision"), loaded)
    with torch.inference_mode():
        loaded.model(**batch)
    loaded.model.model.language_model.embed_tokens.weight.requires_grad_(True)
    loaded.model(**batch).logits.sum().backward()
    assert len(calls) == 2


def test_a_tower_that_is_not_the_bases_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    lmm = get_model("tiny-onevision")
    loaded, _, _ = opened()
    tower = next(name for name, _ in loaded.model.named_parameters() if "vision_tower" in name)
    assert not remember_features(lmm, loaded, learns=[tower])
    changed = copy.copy(loaded)
    object.__setattr__(changed, "changed", frozenset([tower]))
    assert not remember_features(lmm, changed)
    assert remember_features(lmm, loaded)
    for place, name, value in ((repeated_batches, "SMALL_BYTES", 1000), (frozen_tower, "can_cache", lambda lmm: False)):
        with monkeypatch.context() as alone:
            alone.setattr(place, name, value)
            assert not remember_features(lmm, loaded)


def test_a_tower_in_training_mode_and_a_copy_of_the_model_compute_their_own() -> None:
    loaded, batch, calls = opened()
    remember_features(get_model("tiny-onevision"), loaded)
    logits(loaded.model, batch)
    logits(copy.deepcopy(loaded.model), batch)
    assert len(calls) == 2
    loaded.model.train()
    logits(loaded.model, batch)
    assert len(calls) == 3


def test_what_was_used_longest_ago_goes_first() -> None:
    recent = RecentFeatures(limit=100)
    for name in "abc":
        recent.put(name, (torch.zeros(10),))  # 40 bytes
        recent.get("a")
    assert recent.get("b") is None and recent.get("a") is not None and recent.get("c") is not None
    assert recent.size == 80
    recent.put("large", (torch.zeros(26),))
    assert recent.get("large") is None and recent.size == 80


def test_trials_learn_the_same_whether_batches_are_remembered_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checksums = []
    for number, limit in enumerate((RECENT.limit, 0)):
        RECENT.clear()
        monkeypatch.setattr(RECENT, "limit", limit)
        ledger = Ledger(str(tmp_path / str(number)))
        records, sizes = [], []
        for recipe in ("llm", "gate_up"):
            records.append(finetune(stage(recipe=recipe, max_steps=3), ledger, TrainingPlacement()))
            sizes.append(RECENT.size)
        checksums.append([(one.files["delta.safetensors"]["sha256"], one["loss"]) for one in records])
        batches = 3 * 4 * 17 * 96 * 4 if limit else 0  # updates, pictures, tokens, width; beside them the self-check's
        assert sizes[0] == sizes[1] and batches <= sizes[0] <= 2 * batches
        assert not any("image_features" in one.fields for one in records)
    assert checksums[0] == checksums[1]
