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
from lmmcl.weights.image_features.repeated_batches import RECENT, Call, RecentFeatures, remember_features


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


def pictures_of(batch: dict[str, Any], rows: list[int]) -> dict[str, Any]:
    return {name: value[rows] for name, value in batch.items()}


def test_known_pictures_are_not_seen_again_in_other_batches_once_trials_have_shown_that_nothing_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(repeated_batches, "TRIALS", 2)
    loaded, batch, calls = opened()
    orders = ([0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2], [2, 3, 0, 1], [0, 2, 1, 3], [1, 1, 3, 3])
    own = [logits(loaded.model, pictures_of(batch, order)) for order in orders]
    remember_features(get_model("tiny-onevision"), loaded)
    calls.clear()
    seen = []
    for order, expected in zip(orders, own, strict=True):
        assert torch.equal(logits(loaded.model, pictures_of(batch, order)), expected)
        seen.append(len(calls))
    assert seen == [1, 2, 3, 3, 3, 3], "the first, and two trials"
    assert torch.equal(logits(loaded.model, pictures_of(batch, [0, 1])), own[0][:2]) and len(calls) == 4, "another size"
    batch["pixel_values"][0, 0, 0, 0] += 1
    logits(loaded.model, batch)
    assert len(calls) == 5, "a picture that is not known"


def test_pictures_whose_features_change_with_the_batch_are_seen_in_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated_batches, "TRIALS", 1)
    recent = RecentFeatures()
    for shift, order in enumerate(([0, 1], [1, 0], [1, 1], [0, 0])):
        call = Call("of this kind", {"pixels": torch.tensor([[row] for row in order])})
        assert recent.of(call) is None
        recent.keep(call, tuple(torch.tensor([float(row + shift)]) for row in order))
        assert recent.of(call) is not None, "the whole batch stays known"


def test_pictures_are_forgotten_with_the_batches_that_hold_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated_batches, "TRIALS", 1)
    recent = RecentFeatures(limit=24)  # three batches of two

    def call(*rows: int) -> Call:
        return Call("of this kind", {"pixels": torch.tensor([[row] for row in rows])})

    def keep(*rows: int) -> None:
        recent.keep(call(*rows), tuple(torch.tensor([float(row)]) for row in rows))

    keep(0, 1)
    keep(1, 0)
    keep(2, 3)
    assert torch.cat(recent.of(call(0, 3)) or ()).tolist() == [0, 3]
    keep(4, 5)
    keep(6, 7)
    assert recent.of(call(0, 3)) is None and recent.of(call(3, 2)) is not None


def test_a_call_whose_tensors_have_not_one_row_a_picture_is_known_as_a_whole() -> None:
    assert Call("", {"patches": torch.zeros(8, 2), "grid": torch.zeros(2, 3)}).pictures == []
    assert Call("", {"pixels": torch.zeros(2, 2), "scale": torch.tensor(1.0)}).pictures == []
    assert len(set(Call("", {"pixels": torch.arange(4).reshape(2, 2), "sizes": torch.zeros(2, 2)}).pictures)) == 2


def test_a_second_epoch_teaches_the_same_whether_pictures_are_remembered_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeated_batches, "TRIALS", 1)
    checksums = []
    for number, limit in enumerate((RECENT.limit, 0)):
        RECENT.clear()
        monkeypatch.setattr(RECENT, "limit", limit)
        record = finetune(stage(max_steps=15), Ledger(str(tmp_path / str(number))), TrainingPlacement())
        checksums.append((record.files["delta.safetensors"]["sha256"], record["loss"]))
        passes = 3 * 4 * 17 * 96 * 4  # updates of a pass, pictures, tokens, width; five passes in all
        assert RECENT.size <= 2 * passes, "what is put together of known pictures is not held beside these"
    assert checksums[0] == checksums[1]


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
