"""Each part of a running sweep is killed in turn; the sweep, or the same command again, ends with the undisturbed scores."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from made import write_sweep
from s3 import damage

from lmmcl.ledger import Ledger
from lmmcl.runner.audit import check_store
from lmmcl.spec.steps import Finetune
from lmmcl.spec.sweep import Sweep, load_sweep

sys.path.insert(0, str(Path(__file__).parents[1] / "runner"))
from processes import Command  # of tests/runner

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(900)]

SWEEP = """
name: small
orders:
  main: [counting, clock]
benchmarks: {held_out: [colour]}
training: {max_steps: 60, examples: 640, global_batch_size: 32, precision: fp32}
evaluation: {precision: fp32, limit: 24}
grids:
  - {model: [tiny-onevision], recipe: [sa_proj], learning_rate: [1.0e-3]}
"""
ONE_CORE = "ray: {cpus: 1}\ntraining: {save_every: 10}\n"


def started(folder: Path, *more: str) -> Command:
    (folder / "one.yaml").write_text(ONE_CORE)
    return Command(
        "run", "small.yaml", "--store", "store", "--cluster", "one.yaml", "--mlflow", "off", *more, cwd=folder
    )


def scores(sweep: Sweep, ledger: Ledger) -> dict[str, list[float]]:
    found = {key: ledger.find(step) for key, step in sweep.steps.items() if step.kind == "evaluate"}
    return {key: record["sample_scores"] for key, record in found.items() if record}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    sweep = load_sweep(write_sweep(folder, SWEEP))
    alone = started(folder, "--inline")
    assert alone.wait() == 0, alone.output
    return scores(sweep, Ledger(str(folder / "store")))


def processes(command: Command, title: str) -> Iterator[int]:
    """Ids of the processes of `command` whose title begins like this."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            ours = command.mark.encode() in (folder / "environ").read_bytes()
            if ours and (folder / "cmdline").read_bytes().startswith(title.encode()):
                yield int(folder.name)
        except (OSError, ProcessLookupError):
            continue


def kill(command: Command, title: str, when: Callable[[], bool], seconds: float = 150) -> None:
    """SIGKILL a process of `command` as soon as `when` holds and there is one."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert command.process.poll() is None, command.output
        if when():
            for process in processes(command, title):
                os.kill(process, signal.SIGKILL)
                return
        time.sleep(0.05)
    raise AssertionError(f"{title} did not come:\n{command.output}")


def finishes(command: Command, folder: Path, expected: dict[str, list[float]]) -> None:
    assert command.wait(400) == 0, command.output
    ledger = Ledger(str(folder / "store"))
    assert scores(load_sweep(folder / "small.yaml"), ledger) == expected
    assert check_store(ledger).damages == []
    assert not list((folder / "store" / "runs").glob("*")), "nothing is left to resume"


def saved(folder: Path) -> bool:
    """Whether a stage in training has written a checkpoint inside it."""
    return bool(list((folder / "store" / "runs").glob("*/checkpoint-*/trainer_state.json")))


def test_a_worker_killed_inside_a_stage_goes_on_from_its_last_checkpoint(
    tmp_path: Path, undisturbed: dict[str, list[float]]
) -> None:
    sweep = load_sweep(write_sweep(tmp_path, SWEEP))
    command = started(tmp_path)
    kill(command, "ray::_compute_checkpoint", lambda: saved(tmp_path))
    finishes(command, tmp_path, undisturbed)
    ledger = Ledger(str(tmp_path / "store"))
    rows = [
        len(ledger.read_lines(step.path, "curve.jsonl")) for step in sweep.steps.values() if isinstance(step, Finetune)
    ]
    assert rows == [60, 60], "the curve goes through the kill"


def test_an_evaluation_that_is_lost_is_asked_again(tmp_path: Path, undisturbed: dict[str, list[float]]) -> None:
    write_sweep(tmp_path, SWEEP)
    command = started(tmp_path)
    kill(command, "ray::_compute_scores", lambda: True)
    finishes(command, tmp_path, undisturbed)


def test_a_lost_steps_actor_ends_the_sweep_with_a_message_and_the_same_command_finishes_it(
    tmp_path: Path, undisturbed: dict[str, list[float]]
) -> None:
    write_sweep(tmp_path, SWEEP)
    command = started(tmp_path)
    kill(command, "ray::StepsActor", lambda: saved(tmp_path))
    assert command.wait(200) not in (0, None), command.output
    assert "actor" in command.output.lower() and "same command" in command.output, command.output
    assert command.gone_within(60), command.left_behind()
    finishes(started(tmp_path), tmp_path, undisturbed)


def test_a_lost_trial_driver_is_started_again(tmp_path: Path, undisturbed: dict[str, list[float]]) -> None:
    write_sweep(tmp_path, SWEEP)
    command = started(tmp_path)
    kill(command, "ray::ImplicitFunc", lambda: saved(tmp_path))
    if command.wait(400) != 0:
        command = started(tmp_path)
    finishes(command, tmp_path, undisturbed)


def test_a_damaged_checkpoint_is_told_and_computed_again(tmp_path: Path, undisturbed: dict[str, list[float]]) -> None:
    sweep = load_sweep(write_sweep(tmp_path, SWEEP))
    first = started(tmp_path, "--inline")
    assert first.wait() == 0, first.output
    ledger = Ledger(str(tmp_path / "store"))
    stage = next(step for step in sweep.steps.values() if isinstance(step, Finetune))
    for benchmark in [step for step in sweep.steps.values() if step.kind == "evaluate" and step.parents[0] == stage]:
        _remove(tmp_path / "store" / benchmark.path)
    damage(ledger, stage.path, "delta.safetensors", truncate=True)
    told = started(tmp_path, "--inline")
    assert told.wait() == 1
    assert "bytes, not the" in told.output and stage.label in told.output, told.output
    finishes(started(tmp_path, "--inline"), tmp_path, undisturbed)


def test_sigterm_saves_and_the_same_command_goes_on(tmp_path: Path, undisturbed: dict[str, list[float]]) -> None:
    write_sweep(tmp_path, SWEEP)
    command = started(tmp_path)
    end = time.monotonic() + 150
    while not saved(tmp_path):
        assert command.process.poll() is None and time.monotonic() < end, command.output
        time.sleep(0.05)
    command.process.send_signal(signal.SIGTERM)
    assert command.wait(100) == 130, command.output
    assert "goes on from there" in command.output
    assert command.gone_within(30), command.left_behind()
    finishes(started(tmp_path), tmp_path, undisturbed)


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
