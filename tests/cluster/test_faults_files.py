"""Files of a running sweep are cut or changed, or the disk is full: each is reported, and what it spoilt is computed again."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos import EVERY, PATIENCE, UPDATES, Table, Victim, chance
from s3 import damage

from lmmcl.ledger.packs.packing import unpack
from lmmcl.steps import Finetune

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(1800)]


def test_files_that_were_damaged_are_found_and_computed_again_in_the_same_run(
    tmp_path: Path, undisturbed: dict[str, list[float]], table: Table
) -> None:
    victim = Victim(tmp_path)
    first = victim.start("--inline")
    assert first.wait(PATIENCE) == 0, first.output
    unpack(victim.ledger)
    steps = list(victim.sweep.steps.values())
    hit = chance("files").sample([step for step in steps if isinstance(step, Finetune)], 4)
    asked = [step for step in steps if step.kind == "evaluate" and step.parents[0] in hit]
    for step in asked:  # so that there is something to ask of the damaged weights
        (victim.store / step.path / "record.json").unlink()
    for number, stage in enumerate(hit):
        damage(victim.ledger, stage.path, "delta.safetensors", truncate=bool(number % 2))
    untouched = next(step for step in steps if step.kind == "evaluate" and step.parents[0] not in hit)
    record = victim.store / untouched.path / "record.json"
    record.write_text(record.read_text()[:100])  # a record that was cut is none
    recomputed = {step.key for step in (*hit, *asked, untouched)}
    again = victim.start()  # on Ray, where the error comes out of a task in another process
    victim.ends_well(again, undisturbed, recomputed=recomputed)
    assert victim.watch is not None and {step.key for step in hit} <= set(victim.watch.repeated())
    table.add(
        "files in the store",
        "weights cut or changed in a byte, a record cut",
        5,
        "told by digest; those steps, and no others, computed again in the same run; same scores",
    )


def test_a_checkpoint_inside_a_stage_that_was_cut_or_changed_is_passed_over(
    tmp_path: Path, undisturbed: dict[str, list[float]], table: Table
) -> None:
    draw = chance("inside")
    victim = Victim(tmp_path)
    command = victim.start()
    names = draw.sample(["trained.safetensors", "optimizer.pt", "trainer_state.json", "scheduler.pt"], 3)

    def kill_and_spoil(process: int) -> None:
        key = next(key for key, attempt, update in victim.diary()[::-1] if attempt.startswith(f"{process}-") and update)
        os.kill(process, signal.SIGKILL)
        time.sleep(0.2)
        newest = max(
            (victim.store / "runs" / key).glob("checkpoint-*/trainer_state.json"), key=lambda file: file.stat().st_mtime
        )
        spoil(newest.with_name(names.pop()), cut=draw.random() < 0.5)

    past_two = lambda process: 2 * EVERY < victim.update_of(process) < UPDATES - 10  # noqa: E731
    for _ in range(3):
        assert victim.strike(command, "worker", kill_and_spoil, when=past_two)
    victim.ends_well(command, undisturbed, interval=2 * EVERY)
    assert [again >= EVERY for _, again in victim.made_again()] == [True] * 3, "the one before was taken"
    table.add(
        "checkpoint inside a stage",
        "process killed, its newest checkpoint cut or changed in a byte",
        3,
        "found by digest; resumes from the one before; same scores",
    )


def spoil(file: Path, *, cut: bool) -> None:
    """Cut a file to its half, or change a byte in its middle."""
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle] ^= 1
    file.write_bytes(content[:middle] if cut else content)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with 64 MiB of room, a file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"needs the right to mount (as root, or `unshare -rm pytest …`): {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_full_ends_the_run_with_a_remedy_and_the_same_command_goes_on(
    small_disk: Path, tmp_path: Path, undisturbed: dict[str, list[float]], table: Table
) -> None:
    victim = Victim(tmp_path, store=str(small_disk / "store"))
    filler = small_disk / "filler"

    def fill(_: int) -> None:
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                return

    update = chance("disk").randint(1, UPDATES - 10)
    for part, when in {"worker": lambda process: victim.update_of(process) >= update, "evaluation": bool}.items():
        command = victim.start()
        assert victim.strike(command, part, fill, when=when)
        assert command.wait(200) == 1, command.output
        assert "no space left on device" in command.output and "run the same command" in command.output, command.output
        filler.unlink()
    outcome = victim.ends_well(victim.start(), undisturbed)
    table.add(
        "disk of the store", "full; room is made, the same command again", 2, f"told with where and a remedy; {outcome}"
    )
