"""The quickstart from an empty store to its page, by this build and by an earlier one: CPU seconds of all processes, wall seconds, scores.

    git worktree add --detach ../earlier 1396259
    python tests/bench/quickstart_whole.py --baseline ../earlier [--repeats 2] [--rates N] [--recipes N] [--floor]

Builds take turns (ABAB). Each run has a store and caches of its own. The scores of both must be the same, question by question;
where they are not, the bench ends with exit code 1. Without --baseline this build alone is measured, and where its seconds go.
--floor adds what the whole sweep's arithmetic and Ray's start take by themselves (see `quickstart_floor.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import yaml
from processes import PYTHON, CpuWatch, Spent, python_of
from quickstart_floor import measure as floors
from sides import HERE

SCORES = """
import json, sys
try:
    from lmmcl.config.sweep import load_sweep
except ImportError:  # builds before the rooms were named so
    from lmmcl.spec.sweep import load_sweep
from pathlib import Path
from lmmcl.ledger import Ledger
ledger, found = Ledger(sys.argv[2]), {}
for number, trial in enumerate(load_sweep(Path(sys.argv[1])).trials):
    for stage in trial.stages:
        for step in stage.evaluations:
            found[f"{number} {stage.number} {step.label}"] = ledger.find(step)["sample_scores"]
json.dump(found, sys.stdout)
"""


def run(root: Path, sweep: Path, folder: Path, cpus: int) -> tuple[Spent, dict[str, list[float]]]:
    """One run of `sweep` by the build in `root`, in a new `folder`: what it cost, and every question's score."""
    folder.mkdir()
    cluster = folder / "cluster.yaml"
    cluster.write_text(f"ray: {{cpus: {cpus}}}\n")
    environment = {**os.environ, **python_of(root), "XDG_CACHE_HOME": str(folder / "caches")}
    store = str(folder / "store")
    watch, started = CpuWatch(every=0.25), time.monotonic()
    watch.start()
    try:
        command = [PYTHON, "-m", "lmmcl", "run", str(sweep), "--store", store, "--cluster", str(cluster)]
        subprocess.run(command, cwd=root, env=environment, check=True, stdout=subprocess.DEVNULL)
    finally:
        wall, cpu = time.monotonic() - started, watch.end()
    told = subprocess.run(
        [PYTHON, "-c", SCORES, str(sweep), store], cwd=root, env=environment, check=True, stdout=subprocess.PIPE
    )
    return Spent(wall, cpu, watch.by_name()), json.loads(told.stdout)


def compare(mine: dict[str, list[float]], other: dict[str, list[float]]) -> dict[str, int]:
    """How many evaluations and questions there are, and how many answers are worth something else."""
    if mine.keys() != other.keys():
        raise SystemExit(f"other evaluations: {sorted(mine.keys() ^ other.keys())[:5]}")
    pairs = [pair for name, scores in mine.items() for pair in zip(scores, other[name], strict=True)]
    return {"evaluations": len(mine), "questions": len(pairs), "differ": sum(a != b for a, b in pairs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baseline", type=Path)
    parser.add_argument("--sweep", type=Path, default=HERE / "sweeps" / "quickstart.yaml")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--rates", type=int, help="the first N learning rates of each grid alone")
    parser.add_argument(
        "--floor", action="store_true", help="print what the arithmetic and Ray's start alone take, too"
    )
    parser.add_argument("--recipes", type=int, help="the first N recipes of each grid alone")
    arguments = parser.parse_args()
    roots = {"ours": HERE, **({"baseline": arguments.baseline.resolve()} if arguments.baseline else {})}
    costs: dict[str, list[Spent]] = {name: [] for name in roots}
    scores: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="lmmcl-whole-") as temporary:
        text = yaml.safe_load(arguments.sweep.read_text())
        for grid in text["grids"]:
            grid["learning_rate"] = grid["learning_rate"][: arguments.rates]
            grid["recipe"] = grid["recipe"][: arguments.recipes]
        sweep = Path(temporary, "sweep.yaml")
        sweep.write_text(yaml.safe_dump(text))
        for number in range(arguments.repeats):
            for name, root in roots.items():
                spent, scores[name] = run(root, sweep, Path(temporary, f"{name}-{number}"), arguments.cpus)
                costs[name].append(spent)
                parts = ", ".join(f"{part} {used:.1f}" for part, used in spent.by_name.items() if used >= 0.5)
                print(f"{name:9} {spent.cpu:7.1f} s CPU {spent.wall:7.1f} s wall: {parts}", flush=True)
        floor = floors(sweep, updates=60, cpus=arguments.cpus) if arguments.floor else None
    found: dict[str, object] = {
        name: {"cpu": round(median(s.cpu for s in spent), 1), "wall": round(median(s.wall for s in spent), 1)}
        for name, spent in costs.items()
    }
    differ = 0
    if floor:
        found["floor"] = floor
    if "baseline" in costs:
        ours, theirs = costs["ours"], costs["baseline"]
        found["cpu_ratio"] = round(median(s.cpu for s in ours) / median(s.cpu for s in theirs), 3)
        found["wall_ratio"] = round(median(s.wall for s in ours) / median(s.wall for s in theirs), 3)
        found["scores"] = compare(scores["ours"], scores["baseline"])
        differ = compare(scores["ours"], scores["baseline"])["differ"]
    print(json.dumps(found))
    if differ:
        sys.exit(f"{differ} answers are worth something else")


if __name__ == "__main__":
    main()
