"""What is done to a run at a point: signals, a full disk, a store that cannot be written, a clock, or what the test does meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

ANSWER_SECONDS = 120.0
"""How long a test may take for what it is to do."""
FILLER = "filler"


def send(life: Path, name: str = "SIGKILL", to: str = "") -> None:
    """A signal to this process, to the command (`command`), or to Ray's processes whose title begins with `to`."""
    number = signal.Signals[name]
    if to == "command":
        os.kill(int((life / "command").read_text()), number)
    elif to:
        struck = _titled(to, life)
        assert struck, f"there is no {to}"
        for process in struck:
            os.kill(process, number)
    else:
        os.kill(os.getpid(), number)


def _titled(title: str, life: Path) -> list[int]:
    """Processes of this test's clusters whose title begins like this."""
    mark = f"LMMCL_FAULTS={life.parent}".encode()
    hits = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (folder / "environ").read_bytes() and (folder / "cmdline").read_bytes().startswith(
                title.encode()
            ):
                hits.append(int(folder.name))
    return hits


def disk_of(life: Path) -> Path:
    """Where the small file system of a cell is mounted."""
    return life.parents[1] / "disk"


def fill_disk(life: Path) -> None:
    """Write zeros until the disk, a small file system of its own, takes no more."""
    with (disk_of(life) / FILLER).open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(65536))
        except OSError:
            pass
        try:
            while True:
                file.write(bytes(512))
        except OSError:
            pass


def make_read_only(life: Path) -> None:
    """Mount the disk again, so that nothing in it can be written."""
    end = time.monotonic() + 10
    while subprocess.run(["mount", "-o", "remount,ro", str(disk_of(life))], capture_output=True).returncode:
        assert time.monotonic() < end, "the disk is busy"  # a file is open in another thread
        time.sleep(0.02)


def set_clock(life: Path, seconds: float) -> None:
    """The time that this process sees is another one from here on, as when a machine's clock is corrected."""
    now, nanoseconds = time.time, time.time_ns
    time.time = lambda: now() + seconds
    time.time_ns = lambda: nanoseconds() + int(seconds * 1e9)


def run_out_of_memory(life: Path) -> None:
    """Ask torch for more than there is."""
    import torch

    torch.empty(1 << 60, dtype=torch.uint8)


def ask(life: Path, wish: str) -> None:
    """Wait for the test to do something beside the run."""
    number = len(list(life.glob("wish-*")))
    partial = life / f".wish-{number}"
    partial.write_text(wish)
    partial.rename(life / f"wish-{number}")
    end = time.monotonic() + ANSWER_SECONDS
    while not (life / f"done-{number}").exists():
        assert time.monotonic() < end, f"nobody did {wish}"
        time.sleep(0.02)


DEEDS: dict[str, Callable[..., Any]] = {
    "send": send,
    "fill disk": fill_disk,
    "read only": make_read_only,
    "set clock": set_clock,
    "out of memory": run_out_of_memory,
    "ask": ask,
}
