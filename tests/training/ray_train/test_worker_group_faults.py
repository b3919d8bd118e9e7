"""Faults of worker groups: what was saved or trained is not trained again, and the end is that of an undisturbed stage."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from group_parts import TOLERANCE, DieOnce, FailOnce, difference, losses, stage, two_cpus, updates

from lmmcl.back_off import BackOff
from lmmcl.config.cluster import TrainingPlacement
from lmmcl.ledger import Ledger, PendingRecord
from lmmcl.ledger.store import StoreError
from lmmcl.training.finetune import finetune
from lmmcl.training.ray_train import worker_group
from lmmcl.training.ray_train.node_output import OUTPUT
from lmmcl.training.recovery.checksums import write_checksums

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

DROPS = {"lora": {"rank": 4, "dropout": 0.3}}


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with two_cpus(tmp_path_factory.mktemp("ray")):
        yield


def _away(*_: Any) -> None:
    raise StoreError("cannot be reached")


@contextmanager
def _taken_cpu() -> Iterator[None]:
    """Somebody else holds one of the two CPUs."""
    import ray

    @ray.remote(num_cpus=1)
    class Other:
        def here(self) -> None:
            pass

    other = Other.remote()
    ray.get(other.here.remote())
    yield
    ray.kill(other)
    time.sleep(1)


def test_a_group_that_loses_its_worker_goes_on_from_the_last_checkpoint(tmp_path: Path) -> None:
    whole, torn = Ledger(str(tmp_path / "whole")), Ledger(str(tmp_path / "torn"))
    diary = tmp_path / "diary"
    step = stage(mitigation=DieOnce(diary=str(diary)), max_steps=8)
    record = finetune(step, torn, TrainingPlacement(workers=1, save_every=3, max_failures=1))
    assert updates(diary) == 5 + 5, "updates 1 to 5, then 4 to 8"
    assert record["updates"] == 8
    finetune(step, whole, TrainingPlacement())
    assert difference(step, whole, torn) < TOLERANCE


@pytest.mark.parametrize(
    ("first", "then"), [({"workers": 0}, {"workers": 1}), ({"workers": 1}, {"workers": 0})], ids=["into", "out of"]
)
def test_a_stage_that_moves_between_one_process_and_a_group_is_resumed(
    first: dict[str, int], then: dict[str, int], tmp_path: Path
) -> None:
    whole, moved = Ledger(str(tmp_path / "whole")), Ledger(str(tmp_path / "moved"))
    diary = tmp_path / "diary"
    step = stage(mitigation=FailOnce(diary=str(diary)), max_steps=8)
    with pytest.raises(Exception, match="this time only"):
        finetune(step, moved, TrainingPlacement(**first, save_every=3))
    assert updates(diary) == 5
    record = finetune(step, moved, TrainingPlacement(**then, save_every=3))
    assert updates(diary) == 5 + 5, "updates 1 to 5, then 4 to 8"
    assert record["updates"] == 8
    assert moved.sizes("runs") == {}
    finetune(step, whole, TrainingPlacement())
    assert difference(step, whole, moved) < TOLERANCE


def test_every_worker_goes_on_with_its_own_random_numbers(tmp_path: Path) -> None:
    whole, torn = Ledger(str(tmp_path / "whole")), Ledger(str(tmp_path / "torn"))
    quiet = stage(mitigation=DieOnce(diary=str(tmp_path / "quiet"), at=0), recipe=DROPS, max_steps=8)
    harmed = stage(mitigation=DieOnce(diary=str(tmp_path / "harmed")), recipe=DROPS, max_steps=8)
    two = TrainingPlacement(workers=2, save_every=3, max_failures=1)
    finetune(quiet, whole, two)
    finetune(harmed, torn, two)
    assert updates(tmp_path / "harmed") == 5 + 5
    assert losses(harmed, torn) == pytest.approx(losses(quiet, whole), rel=1e-5), "dropout drew the same"


def test_a_group_that_ended_is_recorded_by_the_next_try_without_training_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, torn = Ledger(str(tmp_path / "whole")), Ledger(str(tmp_path / "torn"))
    diary = tmp_path / "diary"
    step = stage(mitigation=DieOnce(diary=str(diary), at=0))
    with monkeypatch.context() as patched, pytest.raises(StoreError):
        patched.setattr(PendingRecord, "commit", _away)
        finetune(step, torn, TrainingPlacement(workers=1))
    assert torn.find(step) is None
    assert finetune(step, torn, TrainingPlacement(workers=1))["updates"] == 6
    assert updates(diary) == 6, "no update was made twice"
    finetune(step, whole, TrainingPlacement())
    assert difference(step, whole, torn) < TOLERANCE
    assert not (tmp_path / "torn" / "runs" / step.key).exists()


def test_where_the_node_of_a_group_that_ended_is_gone_the_stage_goes_on_from_its_newest_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, torn = Ledger(str(tmp_path / "whole")), Ledger(str(tmp_path / "torn"))
    diary = tmp_path / "diary"
    step = stage(mitigation=DieOnce(diary=str(diary), at=0), max_steps=8)
    place = TrainingPlacement(workers=1, save_every=3, max_failures=0)
    with monkeypatch.context() as patched, pytest.raises(StoreError):
        patched.setattr(PendingRecord, "commit", _away)
        finetune(step, torn, place)
    [last] = (tmp_path / "torn" / "runs" / step.key).glob("*/delta.safetensors")
    shutil.rmtree(last.parent)
    last.parent.mkdir()
    (last.parent / OUTPUT).write_text(json.dumps({"node": "0" * 56, "folder": "/nowhere"}))
    write_checksums(last.parent)
    record = finetune(step, torn, place)
    assert updates(diary) == 8, "the Trainer saves at the last update too"
    assert (record["updates"], len(losses(step, torn))) == (8, 8)
    finetune(step, whole, TrainingPlacement())
    assert difference(step, whole, torn) < TOLERANCE


def test_a_group_starts_with_the_workers_that_there_is_room_for(tmp_path: Path) -> None:
    alone, shared = Ledger(str(tmp_path / "alone")), Ledger(str(tmp_path / "shared"))
    with _taken_cpu():
        record = finetune(stage(), shared, TrainingPlacement(workers=2, min_workers=1))
    assert record["strategy"]["workers"] == 1
    finetune(stage(), alone, TrainingPlacement())
    assert losses(stage(), shared) == pytest.approx(losses(stage(), alone), rel=1e-3)


def test_a_group_goes_on_with_fewer_workers_where_there_is_no_room_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, torn = Ledger(str(tmp_path / "whole")), Ledger(str(tmp_path / "torn"))
    diary = tmp_path / "diary"
    step = stage(mitigation=DieOnce(diary=str(diary)), max_steps=8)
    other = _taken_cpu()

    class Meanwhile(BackOff):
        def pause(self, failures: int) -> float:  # before the next try somebody else takes a part of what the group had
            other.__enter__()
            return 0.0

    monkeypatch.setattr(worker_group, "PAUSES", Meanwhile())
    record = finetune(step, torn, TrainingPlacement(workers=2, min_workers=1, save_every=3, max_failures=1))
    other.__exit__(None, None, None)
    assert updates(diary) == 5 + 5
    assert (record["strategy"]["workers"], record["updates"]) == (1, 8)
    finetune(step, whole, TrainingPlacement())
    assert losses(step, torn) == pytest.approx(losses(step, whole), rel=1e-3)
    assert difference(step, whole, torn) < TOLERANCE
