"""The weights inside a stage are those that it passes, whether written on the way or made again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from stage_parts import stage

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.ledger import Ledger
from lmmcl.methods import get_mitigation
from lmmcl.methods.recipes.recipe import get_recipe
from lmmcl.steps import Checkpoint, Finetune, Snapshot
from lmmcl.training.finetune import finetune
from lmmcl.training.recovery.preemption import SaveOnPreemption
from lmmcl.training.snapshots import StopAfter
from lmmcl.training.stage import loop, preparation
from lmmcl.training.stage_errors import StageError
from lmmcl.weights.chain import tensors_of
from lmmcl.weights.checkpoint import ensure_pretrained, load_checkpoint, named_tensors

PLACE = TrainingPlacement()


def wanting(*updates: int, **more: Any) -> Finetune:
    """A stage of four updates without warm-up; the plan wants snapshots of `updates`."""
    return dataclasses.replace(stage(**{"warmup_ratio": 0, **more}), snapshots=updates)


def weights(step: Checkpoint, ledger: Ledger, precision: str = "fp32") -> dict[str, torch.Tensor]:
    return named_tensors(load_checkpoint(step, ledger, precision=precision))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path / "store"))


def test_a_hint_of_snapshots_changes_no_key() -> None:
    assert wanting(1, 2).key == wanting().key
    assert wanting(1, 2) == wanting()
    assert Snapshot(wanting(1, 2), 1).key == Snapshot(wanting(), 1).key != Snapshot(wanting(), 2).key


@pytest.mark.parametrize(
    "more",
    [{}, {"precision": "bf16"}, {"mitigation": get_mitigation("l2_sp")}, {"recipe": "moe"}],
    ids=["plain", "bf16", "mitigated", "moe"],
)
def test_written_on_the_way_or_made_again_the_weights_are_the_same_bits(more: dict[str, Any], tmp_path: Path) -> None:
    passed, again = Ledger(str(tmp_path / "passed")), Ledger(str(tmp_path / "again"))
    step = wanting(1, 3, 4, **more)
    precision = step.training.precision
    finetune(step, passed, PLACE)
    before = weights(step.parent, passed, precision)
    for update in (1, 3, 4):
        snapshot = Snapshot(step, update)
        assert passed.find(snapshot)["updates"] == update, "was written on the way"
        finetune(snapshot, again, PLACE)
        assert same(weights(snapshot, passed, precision), weights(snapshot, again, precision))
        with tensors_of(snapshot, passed) as one, tensors_of(snapshot, again) as other:
            assert set(one) == set(other), "the same tensors are stored"
    assert again.find(step) is None, "a snapshot needs its stage's start alone"
    end = weights(step, passed, precision)
    assert same(weights(Snapshot(step, 4), passed, precision), end), "the last update is the end"
    assert not same(weights(Snapshot(step, 1), passed, precision), end)
    assert not same(weights(Snapshot(step, 1), passed, precision), {name: before.get(name, end[name]) for name in end})


@pytest.mark.parametrize("recipe", [{"lora": {"rank": 4}}, {"osf": {}}], ids=["lora", "osf"])
def test_what_is_merged_at_the_end_of_a_stage_is_not_written_on_the_way_and_still_the_same(
    recipe: dict[str, Any], ledger: Ledger
) -> None:
    step = dataclasses.replace(wanting(2, 4), recipe=get_recipe(recipe))
    finetune(step, ledger, PLACE)
    assert ledger.find(Snapshot(step, 2)) is None
    finetune(Snapshot(step, 4), ledger, PLACE)
    assert same(weights(Snapshot(step, 4), ledger), weights(step, ledger))
    finetune(Snapshot(step, 2), ledger, PLACE)
    assert not same(weights(Snapshot(step, 2), ledger), weights(step, ledger))


def test_the_first_update_of_a_warm_up_has_no_rate_so_its_snapshot_is_the_start(tmp_path: Path) -> None:
    passed, again = Ledger(str(tmp_path / "passed")), Ledger(str(tmp_path / "again"))
    step = wanting(1, warmup_ratio=0.5)
    finetune(step, passed, PLACE)
    assert passed.find(Snapshot(step, 1))["moved"] == 0
    finetune(Snapshot(step, 1), again, PLACE)
    for ledger in (passed, again):
        assert same(weights(Snapshot(step, 1), ledger), weights(step.parent, ledger))


def test_a_snapshot_holds_the_trained_tensors_alone_and_its_record_knows_the_way(ledger: Ledger) -> None:
    step = wanting(2)
    ensure_pretrained(step.parent, ledger)
    finetune(step, ledger, PLACE)
    snapshot = Snapshot(step, 2)
    with tensors_of(snapshot, ledger) as one, tensors_of(step, ledger) as other:
        assert set(one) == set(other)
    found = ledger.checkpoint(snapshot.key)
    assert (found.label, found.depth, found.parents[0].key) == (snapshot.label, step.depth, step.parent.key)
    assert same(weights(found, ledger), weights(snapshot, ledger))


def test_a_try_that_had_saved_the_update_of_a_snapshot_does_not_lead_beyond_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, torn = Ledger(str(tmp_path / "whole")), Ledger(str(tmp_path / "torn"))
    snapshot = Snapshot(wanting(), 2)
    finetune(snapshot, whole, PLACE)
    saving = PLACE.model_copy(update={"save_every": 1, "max_failures": 0})

    def breaks(*_: Any, **__: Any) -> None:
        raise KeyError("once")

    with monkeypatch.context() as patched, pytest.raises(Exception, match="once"):
        patched.setattr(loop, "verify_updates", breaks)
        finetune(snapshot, torn, saving)
    assert list((tmp_path / "torn" / "runs").glob("*/checkpoint-2")), "it lies there"
    assert finetune(snapshot, torn, saving)["updates"] == 2
    assert same(weights(snapshot, torn), weights(snapshot, whole))


def test_a_snapshot_that_was_trained_to_another_update_is_not_recorded(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = Snapshot(wanting(), 2)
    monkeypatch.setattr(loop, "StopAfter", lambda update: StopAfter(update + 1))
    with pytest.raises(StageError, match=r"trained 3 updates, but its snapshot is of update 2"):
        finetune(snapshot, ledger, PLACE)
    assert ledger.find(snapshot) is None


def test_a_notice_in_the_last_update_of_a_snapshot_lets_it_end(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(SaveOnPreemption):
        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            if state.global_step == 2:
                self.notice()
            super().on_step_end(args, state, control, **more)

    monkeypatch.setattr(preparation, "SaveOnPreemption", Late)
    assert finetune(Snapshot(wanting(), 2), ledger, PLACE)["updates"] == 2


def test_what_the_ledger_has_is_not_written_again(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    step = wanting(1, 2)
    finetune(Snapshot(step, 1), ledger, PLACE)
    first = ledger.find(Snapshot(step, 1)).fields
    finetune(step, ledger, PLACE)
    assert ledger.find(Snapshot(step, 1)).fields == first
    assert ledger.find(Snapshot(step, 2)) is not None
