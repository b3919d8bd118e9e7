"""A worker group: what one trained and nobody recorded is not trained again, and how many workers start is what there is room for."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import TaskUnschedulableError
from ray.train import Checkpoint, CheckpointConfig
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from ray.train.v2._internal.execution.checkpoint.checkpoint_manager import CheckpointManager
from ray.train.v2._internal.execution.storage import StorageContext
from ray.train.v2._internal.execution.training_report import _TrainingReport
from ray.train.v2.api.exceptions import ControllerError
from stage_parts import stage

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger, PendingRecord, Record
from lmmcl.ledger.store import StoreError
from lmmcl.private_api.ray_private import reports_file
from lmmcl.training.distributed.batches import cut_batches
from lmmcl.training.finetune import finetune
from lmmcl.training.job import Job
from lmmcl.training.ray_train import node_output, worker_group
from lmmcl.training.ray_train.node_output import OUTPUT
from lmmcl.training.ray_train.worker import LAYOUT, UPDATE
from lmmcl.training.recovery.checksums import write_checksums

STEP = stage()
GROUP = TrainingPlacement(workers=1, max_failures=0)
TRAINER = {UPDATE: 3, LAYOUT: "whole"}
FIELDS = ("precision", "checkpoint_bytes", "proof", "updates", "seconds", "loss", "strategy")


class TrainsError(Exception):
    """A group would be started."""


@pytest.fixture(autouse=True)
def _no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: Any) -> None:
        raise TrainsError

    monkeypatch.setattr(worker_group, "_trainer", start)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    """The files of `STEP`, and its record."""
    ledger = Ledger(str(tmp_path_factory.mktemp("trained")))
    record = finetune(STEP, ledger, TrainingPlacement())
    files = tmp_path_factory.mktemp("files") / "files"
    kept = shutil.ignore_patterns("record.json", "step.json")
    shutil.copytree(Path(ledger.store, STEP.path), files, ignore=kept)
    return files, record


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path / "store"))


def report(ledger: Ledger, folder: Path, told: dict[str, Any], *, number: int = 1) -> Path:
    """Leave a run of `STEP` as Ray Train does when its group has reported `folder`; returns the run's folder."""
    storage = StorageContext(storage_path=f"{ledger.store}/runs", experiment_dir_name=STEP.key)

    async def register() -> None:
        manager = CheckpointManager(CheckpointConfig(num_to_keep=2), storage)
        kept = storage.persist_current_checkpoint(Checkpoint.from_directory(folder), f"checkpoint_{number}")
        write_checksums(Path(kept.path))
        manager.after_report(_TrainingReport(kept, told, False), [told])

    asyncio.run(register())
    return Path(storage.experiment_fs_path)


def ended(record: Record) -> dict[str, Any]:
    return {name: record[name] for name in FIELDS}


def test_what_a_group_had_trained_is_recorded_without_training_it_again(trained: Any, ledger: Ledger) -> None:
    files, before = trained
    run = report(ledger, files, ended(before))
    record = finetune(STEP, ledger, GROUP)
    assert {name: record[name] for name in FIELDS if name != "seconds"} == {
        name: before[name] for name in FIELDS if name != "seconds"
    }
    assert record["seconds"] == before["seconds"], "what it took to train, not to record"
    assert record["files"].keys() == before["files"].keys()
    for file in files.iterdir():
        assert (Path(ledger.store, STEP.path) / file.name).read_bytes() == file.read_bytes()
    assert not run.exists()


def test_a_checkpoint_inside_the_stage_is_not_taken_for_its_end(trained: Any, ledger: Ledger) -> None:
    report(ledger, trained[0], TRAINER)
    with pytest.raises(TrainsError):
        finetune(STEP, ledger, GROUP)


@pytest.mark.parametrize("name", ["delta.safetensors", "seal-0.json"])
def test_what_a_group_handed_over_is_not_recorded_where_it_is_not_whole(
    name: str, trained: Any, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    run = report(ledger, trained[0], ended(trained[1]))
    file = run / "checkpoint_1" / name
    file.write_bytes(file.read_bytes()[:-64])
    with caplog.at_level(logging.WARNING), pytest.raises(TrainsError):
        finetune(STEP, ledger, GROUP.model_copy(update={"save_every": 3}))
    assert "worker group is incomplete" in caplog.text
    assert ledger.find(STEP) is None and run.exists()


def test_where_only_recording_fails_the_next_run_records_what_was_trained(
    trained: Any, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise StoreError("cannot be reached")

    report(ledger, trained[0], ended(trained[1]))
    with monkeypatch.context() as patched, pytest.raises(StoreError):
        patched.setattr(PendingRecord, "commit", away)
        finetune(STEP, ledger, GROUP)
    assert finetune(STEP, ledger, GROUP)["proof"] == trained[1]["proof"]


@pytest.mark.parametrize("gone", [TaskUnschedulableError("the node is dead"), FileNotFoundError("the folder")])
def test_where_the_node_that_held_it_is_gone_the_stage_is_trained_again(
    gone: Exception,
    trained: Any,
    ledger: Ledger,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def lost(*_: Any, **__: Any) -> None:
        raise gone

    (tmp_path / "told").mkdir()
    (tmp_path / "told" / OUTPUT).write_text(json.dumps({"node": "gone", "folder": str(tmp_path)}))
    run = report(ledger, tmp_path / "told", ended(trained[1]))
    monkeypatch.setattr(node_output.RemoteOutput, "commit", lost)
    with caplog.at_level(logging.WARNING), pytest.raises(TrainsError):
        finetune(STEP, ledger, GROUP.model_copy(update={"save_every": 3}))
    assert "the node that held it is lost" in caplog.text
    assert run.exists(), "checkpoints inside the stage are in it"


@pytest.mark.parametrize("harm", ["cut list", "missing checkpoint"])
def test_a_run_whose_list_is_damaged_does_not_stop_its_stage_for_ever(
    harm: str, trained: Any, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    run = report(ledger, trained[0], TRAINER)
    if harm == "cut list":
        (run / reports_file()).write_text((run / reports_file()).read_text()[:80])
    else:
        shutil.rmtree(run / "checkpoint_1")
    with caplog.at_level(logging.WARNING), pytest.raises(TrainsError):
        finetune(STEP, ledger, GROUP.model_copy(update={"save_every": 3}))
    assert "is trained from the start" in caplog.text
    assert not (run / reports_file()).exists()


def job(batch: int = 8, **placement: Any) -> Job:
    step, place = stage(global_batch_size=batch), TrainingPlacement(**placement)
    return Job(step, Ledger("/nowhere"), place, cut_batches(step.training, place))


@pytest.mark.parametrize(
    ("cpus", "workers"),
    [(9.0, 8), (8.0, 8), (7.0, 4), (3.0, 2), (2.0, 2), (1.0, 8)],
    ids=lambda value: f"{value:g}",
)
def test_as_many_workers_start_as_there_is_room_for_and_share_the_batch_evenly(
    cpus: float, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_group.ray, "available_resources", lambda: {"CPU": cpus})
    now = worker_group.sized(job(workers=8, min_workers=2))
    assert now.placement.workers == workers
    assert now.batches.workers * now.batches.accumulation * now.batches.micro == 8


def test_the_scarcest_resource_says_how_much_room_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_group.ray, "available_resources", lambda: {"CPU": 64.0, "GPU": 2.0})
    assert worker_group.sized(job(workers=8, min_workers=1, gpus_per_worker=1)).placement.workers == 2
    assert worker_group.sized(job(workers=8, gpus_per_worker=1)).placement.workers == 8, "nothing was left open"


@pytest.mark.parametrize(("workers", "fewest", "said"), [(8, 3, "min_workers"), (6, 2, "training.workers")])
def test_numbers_of_workers_that_cannot_share_the_batch_are_refused(
    workers: int, fewest: int, said: str, ledger: Ledger
) -> None:
    step = stage(global_batch_size=8)
    with pytest.raises(UserError, match=rf"{said}.*cannot be shared by .*allowed numbers of workers: 1, 2, 4, 8"):
        finetune(step, ledger, TrainingPlacement(workers=workers, min_workers=fewest))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"workers": 2, "min_workers": 3}, r"must be at most workers \(2\), not 3"),
        ({"min_workers": 1}, r"must be at most workers \(0\), not 1"),
        ({"workers": 4, "min_workers": 2, "strategy": "deepspeed"}, "needs strategy: ddp; with deepspeed"),
    ],
)
def test_settings_that_leave_no_number_of_workers_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TrainingPlacement(**settings)


def test_a_group_that_finds_no_place_is_sized_again(monkeypatch: pytest.MonkeyPatch) -> None:
    room, started = [1.0, 1.0, 4.0], []

    class Trainer:
        def __init__(self, now: Job, storage: str) -> None:
            started.append(now.placement.workers)

        def fit(self) -> str:
            if len(started) < 3:
                raise ControllerError(WorkerGroupStartupTimeoutError(8))
            return "trained"

    monkeypatch.setattr(worker_group, "_trainer", Trainer)
    monkeypatch.setattr(worker_group.ray, "available_resources", lambda: {"CPU": room[len(started)]})
    assert worker_group.fit(job(workers=8, min_workers=2), "") == "trained"
    assert started == [8, 8, 4], "all are waited for until there is room for enough"
