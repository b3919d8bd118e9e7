"""What benches with two sides share: this build and an earlier one in a worktree, commands alternated, CPU seconds and memory of each.

git worktree add ../earlier COMMIT      # then --baseline ../earlier
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Cost:
    """Of one command: CPU seconds of all its processes, wall seconds, largest memory of a process in MB."""

    cpu: float
    wall: float
    megabytes: float


def lmmcl(arguments: Sequence[str], root: Path = HERE, *, folder: Path) -> Cost:
    """Run `lmmcl` of the source in `root`, in `folder`; raises CalledProcessError where it fails."""
    return python(["-m", "lmmcl", *arguments], root, folder=folder)


def python(arguments: Sequence[str], root: Path = HERE, *, folder: Path) -> Cost:
    """Run Python with the package of `root`."""
    paths = os.pathsep.join([str(root), str(root / "tests")])
    environment = {**with_bytecode(), "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    # Memory is the largest of all children so far, so each command is measured below a process of its own.
    code = (
        "import resource, subprocess, sys; rc = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(rc)"
    )
    command = [sys.executable, "-c", code, sys.executable, *arguments]
    told = subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(cpu, wall, int(told.split()[-1]) / 1000)


def with_bytecode() -> dict[str, str]:
    """The environment, in which Python keeps what it compiles, as it is kept of an installed package: else each command compiles
    every file again."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def middle(costs: Sequence[Cost]) -> Cost:
    """The median of each figure."""
    return Cost(
        median(each.cpu for each in costs),
        median(each.wall for each in costs),
        median(each.megabytes for each in costs),
    )


def arguments_of(doc: str | None, trials: int) -> argparse.Namespace:
    """The command line of a bench that fills a store a side: `trials` is its default."""
    return parser_of(doc, trials).parse_args()


def parser_of(doc: str | None, trials: int) -> argparse.ArgumentParser:
    """What reads it, for a bench that asks for more."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=trials)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--baseline", type=Path)
    parser.add_argument("--keep", type=Path, help="folder of the stores, used again where they are there")
    return parser


def roots_of(arguments: argparse.Namespace) -> dict[str, Path]:
    """`this` build, and the `baseline` where one was named."""
    return {"this": HERE} | ({"baseline": arguments.baseline.resolve()} if arguments.baseline else {})


@contextmanager
def folder_of(arguments: argparse.Namespace) -> Iterator[Path]:
    """The folder to keep, or a temporary one."""
    with tempfile.TemporaryDirectory(prefix="lmmcl-bench-") as temporary:
        yield arguments.keep.resolve() if arguments.keep else Path(temporary)


def fill(code: str, trials: int, roots: Mapping[str, Path], folder: Path) -> None:
    """Have each side fill a store of its own in `folder`, where it is not there: keys of two builds may differ."""
    for side, root in roots.items():
        place = folder / side
        if not (place / "store").exists():
            place.mkdir(parents=True, exist_ok=True)
            python(["-c", code, str(trials), str(place)], root, folder=place)
