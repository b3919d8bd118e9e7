"""A sweep of thousands of tiny trials in one Ray run: what its processes hold after 300 trials and after the last, then ten reruns.

    python tests/bench/long_lives.py [--trials 3000] [--reruns 10] [--folder FOLDER]

Trials share one fine-tune of two updates and differ in the coefficient of WiSE-FT, so each has a merge, two evaluations of two
questions and a probe of its own: what is measured is what a trial costs besides arithmetic. MLflow, moments and the page are as in
any run. Prints a table and exits with 1 where a bound is missed. In FOLDER, `samples.jsonl` can be read while it runs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from holdings import DRIVER, OURS, Family, Samples, middle
from processes import PYTHON, python_of
from reruns import rerun_table, reruns

ROOT = Path(__file__).resolve().parents[2]
GROWTH = 1.1
"""The most that memory may be after the last trial, as a multiple of what it was after a tenth of them."""
MORE = 8
"""File descriptors and threads that a process may have more of by then."""
MORE_FILES, MORE_MEGABYTES = 60, 64.0
"""Files, folders and MB that Ray's temporary folder may have more of by then."""
SLOWER = 1.5
"""CPU seconds of the driver for a trial of the last third, as a multiple of those of one of the second tenth."""
SWEEP = """
name: long
orders: {{main: [counting]}}
benchmarks: {{held_out: [colour]}}
training: {{max_steps: 2, examples: 16, global_batch_size: 8, precision: fp32}}
evaluation: {{precision: fp32, limit: 2, updates: [1]}}
probes: [{{number_bias: {{examples: 2}}}}]
grids:
  - {{model: [tiny-onevision], recipe: [sa_proj], learning_rate: [1.0e-3], mitigation: [{mitigations}]}}
"""
STRANGE = re.compile(r"Trial _drive|core_worker|Traceback|Error")
"""What no line of a run that ends well has: of Ray, of Tune, or of a fault that was survived."""
DONE = re.compile(rb"stage 1 \(after ")


def write_sweep(folder: Path, trials: int) -> Path:
    """The sweep file: one coefficient for each trial."""
    alphas = (f"{{wise_ft: {{alpha: {(place + 1) / (trials + 1):.6f}}}}}" for place in range(trials))
    file = folder / "long.yaml"
    file.write_text(SWEEP.format(mitigations=", ".join(alphas)), encoding="utf-8")
    return file


def environment(folder: Path) -> dict[str, str]:
    """Of the command: temporary files of its own, below a short path, which Ray's sockets need."""
    for name in ("home", "tmp"):
        (folder / name).mkdir(exist_ok=True)
    own = {"TMPDIR": str(folder / "tmp"), "RAY_TMPDIR": str(folder / "tmp"), "HOME": str(folder / "home")}
    return {**os.environ, **python_of(ROOT), **own, "RAY_USAGE_STATS_ENABLED": "0"}


def command(*more: str) -> list[str]:
    """What is run, and run again."""
    return [PYTHON, "-m", "lmmcl", "run", "long.yaml", "--store", "store", *more]


class Follower:
    """How many trials a run has finished, by the lines that it prints."""

    def __init__(self, log: Path) -> None:
        self._log, self._read, self._done = log, 0, 0

    def done(self) -> int:
        with self._log.open("rb") as file:
            file.seek(self._read)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._read += len(whole)
        self._done += len(DONE.findall(whole))
        return self._done


def run(folder: Path, every: int) -> int:
    """The sweep from its start to its end, with a sample after each `every` trials; its exit code."""
    samples, log = Samples(folder / "samples.jsonl"), folder / "run.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command(), cwd=folder, env=environment(folder), stdout=output, stderr=output)
    family, follower, due, folders = Family(process.pid), Follower(log), every, {"temporary": folder / "tmp"}
    while process.poll() is None:
        if (done := follower.done()) >= due:
            samples.add(done, family, folders)
            due = done - done % every + every
        time.sleep(0.5)
    return process.returncode


def judge(samples: Sequence[dict[str, Any]], trials: int) -> tuple[list[str], list[str]]:
    """The table, and what misses its bound: early (from a tenth of the trials on) against late samples, medians of three each."""
    early = [sample for sample in samples if sample["trials"] >= trials / 10][:3]
    late = [sample for sample in samples if sample["trials"] <= trials][-3:]
    first, last = early[0]["trials"], late[-1]["trials"]
    lines = [f"| | figure | trial {first} | trial {last} | ratio |", "|---|---|---|---|---|"]
    missed = []

    def row(kind: str, name: str, *path: str, bound: float | None = None, more: float | None = None) -> None:
        before, after = middle(early, *path), middle(late, *path)
        if before is None or after is None:
            return
        lines.append(f"| {kind} | {name} | {before:g} | {after:g} | {after / before if before else 1:.2f} |")
        if (bound is not None and after > before * bound) or (more is not None and after > before + more):
            missed.append(f"{kind}: {name} grew from {before:g} to {after:g}")

    kinds = sorted({kind for sample in late for kind in sample["kinds"]}, key=lambda kind: (kind not in OURS, kind))
    for kind in kinds:
        ours = kind in OURS
        row(kind, "processes", "kinds", kind, "processes")
        row(kind, "memory, MiB", "kinds", kind, "rss", bound=GROWTH if ours else None)
        row(kind, "of its own, MiB", "kinds", kind, "private")
        row(kind, "file descriptors", "kinds", kind, "descriptors", more=MORE if ours else None)
        row(kind, "threads", "kinds", kind, "threads", more=MORE if ours else None)
    row("temporary folder", "files", "folders", "temporary", "files", more=MORE_FILES)
    row("temporary folder", "folders", "folders", "temporary", "folders", more=MORE_FILES)
    row("temporary folder", "MB", "folders", "temporary", "megabytes", more=MORE_MEGABYTES)
    slow, pace = _pace(samples, trials)
    return [*lines, pace], [*missed, *slow]


def _pace(samples: Sequence[dict[str, Any]], trials: int) -> tuple[list[str], str]:
    """What of a trial's cost grows with the number of trials before it: CPU of the driver, and seconds on the clock."""

    def between(low: float, high: float) -> tuple[float, float]:
        part = [sample for sample in samples if low * trials <= sample["trials"] <= high * trials]
        start, end = part[0], part[-1]
        count = max(1, end["trials"] - start["trials"])
        cpu = end["kinds"][DRIVER]["cpu"] - start["kinds"][DRIVER]["cpu"]
        return cpu / count, (end["at"] - start["at"]) / count

    (early, wall_early), (late, wall_late) = between(0.1, 0.4), between(0.7, 1.0)
    text = f"\nDriver: {1000 * early:.0f} ms CPU a trial early, {1000 * late:.0f} ms late; "
    text += f"{wall_early:.2f} s and {wall_late:.2f} s on the clock."
    missed = (
        [f"{DRIVER}: a trial costs {late / early:.2f} times the CPU of an early one"] if late > SLOWER * early else []
    )
    return missed, text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=3000)
    parser.add_argument("--every", type=int, help="trials between two samples; default a 60th of them")
    parser.add_argument("--reruns", type=int, default=10)
    parser.add_argument("--folder", type=Path, help="a short path, kept; default a temporary folder")
    parser.add_argument("--judge", action="store_true", help="only print the tables of what lies in --folder")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ll-", dir="/tmp")))
        folder = folder.resolve()
        if not arguments.judge:
            folder.mkdir(parents=True, exist_ok=True)
            write_sweep(folder, arguments.trials)
            started = time.time()
            if code := run(folder, arguments.every or max(1, arguments.trials // 60)):
                sys.exit(f"the run ended with {code}:\n{(folder / 'run.log').read_text()[-3000:]}")
            (folder / "seconds.json").write_text(json.dumps(time.time() - started))
        table, missed = judge(Samples(folder / "samples.jsonl").read(), arguments.trials)
        print(
            "\n".join(
                [f"{arguments.trials} trials in {json.loads((folder / 'seconds.json').read_text()):.0f} s", "", *table]
            )
        )
        folder_log = (folder / "run.log").read_text(encoding="utf-8", errors="replace")
        if arguments.reruns:
            if not arguments.judge:
                reruns(command(), folder, environment(folder), arguments.reruns)
            lines, more = rerun_table(folder)
            print("\n".join(["", *lines]))
            missed += more
    strange = [line for line in folder_log.splitlines() if STRANGE.search(line)]
    missed += [f"printed: {line[:200]}" for line in strange[:5]]
    for line in missed:
        print(f"MISSED: {line}")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
