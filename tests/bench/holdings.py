"""What a running command holds: memory, file descriptors and threads of its processes by kind, and the files of a folder.

Samples are taken while it runs and written as JSON lines, so that a run of hours can be looked at meanwhile and judged afterwards.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from processes import process_name

MIB = 2**20
DRIVER, TRIALS, STEPS, WORKERS = "driver", "trial actors", "steps actor", "step workers"
OURS = (DRIVER, TRIALS, STEPS, WORKERS)
"""Kinds of processes that run our code; the others are Ray's own."""
TITLES = {
    "ray::ImplicitFunc": TRIALS,
    "ray::StepsActor": STEPS,
    "ray::_compute": WORKERS,
    "ray::_examine": WORKERS,
    "ray::IDLE": WORKERS,
}


@dataclass(frozen=True)
class Holding:
    """Of the processes of one kind: how many, the largest of each figure (MiB), CPU seconds of those that live."""

    processes: int
    rss: float
    private: float
    descriptors: int
    threads: int
    cpu: float


@dataclass(frozen=True)
class Files:
    """What lies below a folder."""

    files: int
    folders: int
    megabytes: float

    @classmethod
    def below(cls, folder: Path) -> Files:
        files = folders = size = 0
        for entry in _walk(str(folder)):
            with suppress(OSError):  # deleted meanwhile
                if entry.is_dir(follow_symlinks=False):
                    folders += 1
                else:
                    files += 1
                    size += entry.stat(follow_symlinks=False).st_size
        return cls(files, folders, round(size / MIB, 2))


def _walk(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        yield entry
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path)


class Family:
    """A command and all processes below it. A process keeps its kind: Ray's workers change their titles with their work."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._kinds: dict[tuple[int, float], str] = {(pid, self._root.create_time()): DRIVER}

    def holdings(self) -> dict[str, Holding]:
        """What they hold now, by kind."""
        by_kind: dict[str, list[dict[str, Any]]] = {}
        with suppress(psutil.NoSuchProcess):
            for process in [self._root, *self._root.children(recursive=True)]:
                with suppress(psutil.Error):  # it has just ended
                    figures = _figures(process)
                    by_kind.setdefault(self._kind(process), []).append(figures)
        return {kind: _largest(of_kind) for kind, of_kind in sorted(by_kind.items())}

    def pids(self) -> list[int]:
        """All of them, the command first."""
        with suppress(psutil.NoSuchProcess):
            return [self._root.pid, *(process.pid for process in self._root.children(recursive=True))]
        return []

    def _kind(self, process: psutil.Process) -> str:
        at = process.pid, process.create_time()
        known = self._kinds.get(at, "")
        if known in OURS and known != WORKERS:
            return known
        name = process_name(process)
        kind = next((kind for title, kind in TITLES.items() if name.startswith(title)), known or name)
        self._kinds[at] = kind
        return kind


def _figures(process: psutil.Process) -> dict[str, Any]:
    with process.oneshot():
        cpu = process.cpu_times()
        return {
            "rss": process.memory_info().rss / MIB,
            "private": process.memory_full_info().uss / MIB,
            "descriptors": process.num_fds(),
            "threads": process.num_threads(),
            "cpu": cpu.user + cpu.system,
        }


def _largest(figures: Sequence[dict[str, Any]]) -> Holding:
    most = {name: max(one[name] for one in figures) for name in ("rss", "private", "descriptors", "threads")}
    cpu = sum(one["cpu"] for one in figures)
    return Holding(
        len(figures),
        round(most["rss"], 1),
        round(most["private"], 1),
        most["descriptors"],
        most["threads"],
        round(cpu, 1),
    )


class Samples:
    """Samples of a run in a file of JSON lines."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def add(self, done: int, family: Family, folders: dict[str, Path]) -> None:
        """Take one, after `done` trials."""
        sample = {
            "trials": done,
            "at": round(time.time(), 1),
            "kinds": {kind: asdict(holding) for kind, holding in family.holdings().items()},
            "folders": {name: asdict(Files.below(folder)) for name, folder in folders.items()},
        }
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(sample) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """All that were taken."""
        return [json.loads(line) for line in self._file.read_text(encoding="utf-8").splitlines()]


def middle(samples: Sequence[dict[str, Any]], *path: str) -> float | None:
    """The median of a figure over some samples, such as `middle(samples, "kinds", "driver", "rss")`; None where there is none."""
    values = [value for sample in samples if (value := _at(sample, path)) is not None]
    return median(values) if values else None


def _at(sample: dict[str, Any], path: Sequence[str]) -> Any:
    value: Any = sample
    for name in path:
        if not isinstance(value, dict) or name not in value:
            return None
        value = value[name]
    return value
