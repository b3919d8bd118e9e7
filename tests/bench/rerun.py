"""A run that finds nothing to do against `report`, the first and the last signs of life of a run: CPU and wall seconds.

    python tests/bench/rerun.py [--sweep sweeps/quickstart.yaml] [--store STORE] [--inline] [--repeats 3]

STORE is one in which the sweep is finished; without it the sweep is run first, into a new one, and the time of each line of that
run is printed: when the first came, the longest silence, and how long after its last stage the run ended.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sides import HERE, lmmcl, middle, with_bytecode


def follow(arguments: list[str]) -> dict[str, float]:
    """Seconds until the first line of a run, the longest silence after it, and from the last stage's line to the end."""
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "lmmcl", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=HERE,
        env=with_bytecode(),
    )
    times, last_stage = [started], started
    assert process.stdout is not None
    for line in process.stdout:
        times.append(time.monotonic())
        last_stage = times[-1] if " · stage " in line else last_stage
        print(f"{times[-1] - started:7.1f} {line.rstrip()}")
    if process.wait():
        raise SystemExit(f"the run ended with {process.returncode}")
    times.append(time.monotonic())
    gaps = [after - before for before, after in itertools.pairwise(times[1:])]
    return {
        "first_line": times[1] - started,
        "longest_silence": max(gaps, default=0.0),
        "after_last_stage": times[-1] - last_stage,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", type=Path, default=HERE / "sweeps" / "quickstart.yaml")
    parser.add_argument("--store", type=Path)
    parser.add_argument("--inline", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    sweep, more = str(arguments.sweep.resolve()), ["--inline"] if arguments.inline else []
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="lmmcl-bench-") as temporary:
        store = str(arguments.store.resolve() if arguments.store else Path(temporary, "store"))
        if not arguments.store:
            found |= follow(["run", sweep, "--store", store, *more])
        costs: dict[str, list] = {"report": [], "rerun": []}
        for _ in range(arguments.repeats):
            costs["report"].append(lmmcl(["report", sweep, "--store", store], folder=HERE))
            costs["rerun"].append(lmmcl(["run", sweep, "--store", store, *more], folder=HERE))
    report, rerun = middle(costs["report"]), middle(costs["rerun"])
    found |= {"report": report.cpu, "rerun": rerun.cpu, "ratio": rerun.cpu / report.cpu}
    print(f"report {report.cpu:.2f} s CPU, rerun {rerun.cpu:.2f} s CPU: {found['ratio']:.2f} ×")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
