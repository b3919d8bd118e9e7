"""Where a stage is resumed from: the newest checkpoint that Ray Train knows of and that fits how the model is shared now."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray.train
from transformers.trainer import TRAINER_STATE_NAME

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.training.distributed.strategies import checkpoint_layout
from lmmcl.training.distributed.workers import update_of
from lmmcl.training.ray_train import worker as ray_worker
from lmmcl.training.ray_train.worker import LAYOUT, UPDATE, RayWorkers, ReportCheckpoint
from lmmcl.training.recovery.checksums import CHECKSUMS, write_checksums
from lmmcl.training.recovery.resume import resume_point
from lmmcl.training.stage.trainer import TRAINED

DDP = TrainingPlacement(workers=2)
ENDED = {"updates": 8, "proof": {"moved": 3}}


def zero3(workers: int, **more: Any) -> TrainingPlacement:
    return TrainingPlacement(workers=workers, strategy="deepspeed", zero_stage=3, **more)


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that makes Ray Train know of checkpoints that were reported with these words, the oldest first."""

    def reported(number: int, told: dict[str, Any]) -> Any:
        folder = tmp_path / f"reported-{number}"
        folder.mkdir()
        for name in (TRAINED, TRAINER_STATE_NAME) if UPDATE in told else ("delta.safetensors",):
            (folder / name).write_text(str(told))
        write_checksums(folder)
        return SimpleNamespace(checkpoint=ray.train.Checkpoint.from_directory(folder), metrics=told)

    def tell(*all_told: dict[str, Any]) -> None:
        found = [reported(number, told) for number, told in enumerate(all_told)]
        monkeypatch.setattr(ray.train, "get_all_reported_checkpoints", lambda timeout_s: found)

    worker(monkeypatch, 0, lambda said: said)
    return tell


def worker(monkeypatch: pytest.MonkeyPatch, rank: int, told: Callable[[Any], Any]) -> None:
    """Be this worker of a group, who is `told` what the first says of each checkpoint."""
    monkeypatch.setattr(
        ray.train, "get_context", lambda: SimpleNamespace(get_world_rank=lambda: rank, get_world_size=lambda: 2)
    )
    monkeypatch.setattr(ray_worker, "broadcast_from_rank_zero", told)


def at(update: int, placement: TrainingPlacement = DDP) -> dict[str, Any]:
    return {UPDATE: update, LAYOUT: checkpoint_layout(placement)}


def goes_on_from(runs: Path, placement: TrainingPlacement, **more: Any) -> int | None:
    with resume_point(RayWorkers(), runs, placement, **more) as point:
        return update_of(point) if point else None


def test_a_group_goes_on_from_the_newest_checkpoint(known: Any, tmp_path: Path) -> None:
    known(at(3), at(6))
    with resume_point(RayWorkers(), tmp_path, DDP) as point:
        assert point is not None and update_of(point) == 6
        assert (point / TRAINER_STATE_NAME).read_text() == str(at(6))


def test_what_a_group_handed_over_at_its_end_does_not_hide_the_checkpoint_before_it(known: Any, tmp_path: Path) -> None:
    known(at(3), at(6), ENDED)
    assert goes_on_from(tmp_path, DDP) == 6


def test_one_that_is_not_whole_is_passed_over(known: Any, tmp_path: Path) -> None:
    known(at(3), at(6))
    (tmp_path / "reported-1" / f"{CHECKSUMS}0.json").unlink()
    assert goes_on_from(tmp_path, DDP) == 3


def test_all_workers_go_on_from_the_one_that_the_first_of_them_took(
    known: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(at(3), at(6))
    of_the_first = iter(["its checksums are truncated", None])
    worker(monkeypatch, 1, lambda said: next(of_the_first))
    assert goes_on_from(tmp_path, DDP) == 3


def test_a_snapshot_goes_on_from_before_its_update(known: Any, tmp_path: Path) -> None:
    known(at(3), at(6))
    assert goes_on_from(tmp_path, DDP, before=6) == 3


def alone(folder: Path, *updates: int) -> Path:
    """Where a process of its own saved after these updates."""
    for update in updates:
        checkpoint = folder / f"checkpoint-{update}"
        checkpoint.mkdir(parents=True)
        (checkpoint / TRAINER_STATE_NAME).write_text("alone")
        write_checksums(checkpoint)
    return folder


def test_a_group_resumes_what_a_process_of_its_own_saved_after_it(known: Any, tmp_path: Path) -> None:
    known(at(3))
    earlier = alone(tmp_path / "alone", 2, 5)
    with resume_point(RayWorkers(earlier), tmp_path, DDP) as point:
        assert point is not None and (update_of(point), (point / TRAINER_STATE_NAME).read_text()) == (5, "alone")
    (earlier / "checkpoint-5" / f"{CHECKSUMS}0.json").unlink()
    with resume_point(RayWorkers(earlier), tmp_path, DDP) as point:
        assert point is not None and (point / TRAINER_STATE_NAME).read_text() == str(at(3)), "then the group's own"
    with resume_point(RayWorkers(earlier), tmp_path, zero3(2)) as point:
        assert point is None, "a divided model cannot be resumed from either"


def test_all_workers_list_what_the_first_of_them_sees(
    known: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(at(3))
    earlier = alone(tmp_path / "alone", 5)
    told = iter([[(5, "checkpoint-5")], None])
    alone(earlier, 8)  # written since the first looked
    worker(monkeypatch, 1, lambda said: next(told))
    with resume_point(RayWorkers(earlier), tmp_path, DDP) as point:
        assert point is not None and update_of(point) == 5


def test_a_run_that_has_reported_no_checkpoint_starts_at_its_beginning(known: Any, tmp_path: Path) -> None:
    known(ENDED)
    assert goes_on_from(tmp_path, DDP) is None


@pytest.mark.parametrize(
    ("wrote", "reads", "fits"),
    [
        (DDP, TrainingPlacement(workers=1), True),
        (zero3(2), zero3(2, micro_batch_size=1), True),
        (zero3(2), DDP, False),
        (DDP, zero3(2), False),
        (zero3(2), zero3(4), False),
        (zero3(2), TrainingPlacement(workers=2, strategy="deepspeed", zero_stage=2), False),
    ],
)
def test_parts_of_a_divided_model_are_for_those_who_divide_it_in_the_same_way(
    wrote: TrainingPlacement, reads: TrainingPlacement, fits: bool, known: Any, tmp_path: Path
) -> None:
    known(at(3, wrote))
    assert goes_on_from(tmp_path, reads) == (3 if fits else None)


def test_each_worker_hands_over_its_part_and_keeps_no_copy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told: list[Any] = []
    monkeypatch.setattr(ray.train, "report", lambda *words, **more: told.append((words, more)))
    for first in (True, False):
        state = SimpleNamespace(global_step=6, is_world_process_zero=first)
        ReportCheckpoint(DDP).on_save(SimpleNamespace(output_dir=str(tmp_path)), state, SimpleNamespace())  # type: ignore[arg-type]
    for words, more in told:
        assert words == (at(6),)
        assert more["checkpoint"].path == str(tmp_path / "checkpoint-6")
        assert more["delete_local_checkpoint_after_upload"]
    assert len(told) == 2
