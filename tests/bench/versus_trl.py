"""A grid by `lmmcl run` and by a script over TRL's `SFTTrainer` (`trl_script.py`): wall and CPU seconds of all processes, scores.

    python -m venv --system-site-packages ../with-trl && ../with-trl/bin/pip install --no-deps trl==1.16.0
    python tests/bench/versus_trl.py --python ../with-trl/bin/python [--rates N] [--recipes N] [--stages N] [--side-by-side 2]

Same model, data, number of updates, and the same benchmarks after every stage; the pre-trained model is asked once. The script is a
process a stage, with all cores, that trains, saves and asks; `--side-by-side 2` runs two trials of it at a time, each with its share
of the cores. Its order of examples is the Trainer's own, so scores differ as those of two seeds do. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean
from typing import Any

import yaml
from sides import HERE
from versus_script import ENVIRONMENT, by_lmmcl, timed

from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.ledger import Ledger

SCRIPT = Path(__file__).parent / "trl_script.py"


def by_trl(path: Path, sweep: Sweep, folder: Path, python: str, cores: int, side_by_side: int) -> None:
    """Every stage a process; several trials side by side, with their share of the cores."""
    environment = {**ENVIRONMENT, "OMP_NUM_THREADS": str(max(1, cores // side_by_side)), "PYTHONPATH": str(HERE)}

    def script(*words: object) -> None:
        command = [python, str(SCRIPT), str(path), *map(str, words)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}:\n{done.stderr[-3000:]}")

    def walk(trial: int) -> None:
        parent: object = "base"
        for stage in range(1, len(sweep.trials[trial].stages)):
            out = folder / f"{trial}-{stage}"
            script(trial, stage, parent, out)
            parent = out / "model"

    with ThreadPoolExecutor(side_by_side) as pool:
        base = pool.submit(script, 0, 0, "base", folder / "base")
        for walked in [pool.submit(walk, trial) for trial in range(len(sweep.trials))]:
            walked.result()
        base.result()


def mean_scores(sweep: Sweep, ledger: Ledger, folder: Path) -> dict[str, float]:
    """Each side's mean score in points: of the pre-trained model, and over all stages."""
    ours: dict[str, list[float]] = {"base": [], "stages": []}
    theirs: dict[str, list[float]] = {"base": [], "stages": []}
    for number, trial in enumerate(sweep.trials):
        for stage in trial.stages:
            kind = "stages" if stage.number else "base"
            at = folder / (f"{number}-{stage.number}" if stage.number else "base")
            scores = json.loads((at / "scores.json").read_text())
            for step in stage.evaluations:
                record = ledger.find(step)
                assert record is not None
                ours[kind].append(100 * mean(record["sample_scores"]))
                theirs[kind].append(100 * mean(scores[step.label]))
    return {
        f"{side}_{kind}": round(mean(values), 2)
        for side, every in (("lmmcl", ours), ("trl", theirs))
        for kind, values in every.items()
    }


def compare(path: Path, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    sweep = load_sweep(path)
    ours, our_cpu = timed(by_lmmcl, path, folder / "store", given.cores)
    print(f"lmmcl {ours:.0f} s, {our_cpu:.0f} s CPU", file=sys.stderr, flush=True)
    theirs, their_cpu = timed(by_trl, path, sweep, folder / "trl", given.python, given.cores, given.side_by_side)
    return {
        "trials": len(sweep.trials),
        "stages": sum(len(trial.stages) - 1 for trial in sweep.trials),
        "side_by_side": given.side_by_side,
        "load_before": os.getloadavg()[0],
        "seconds": {"lmmcl": round(ours, 1), "trl": round(theirs, 1), "ratio": round(theirs / ours, 2)},
        "cpu_seconds": {"lmmcl": round(our_cpu, 1), "trl": round(their_cpu, 1), "ratio": round(their_cpu / our_cpu, 2)},
        "scores": mean_scores(sweep, Ledger(str(folder / "store")), folder / "trl"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", type=Path, default=HERE / "sweeps" / "quickstart.yaml")
    parser.add_argument("--python", default=sys.executable, help="one that has TRL")
    parser.add_argument("--rates", type=int, help="the first N learning rates of each grid alone")
    parser.add_argument("--recipes", type=int, help="the last N recipes of each grid alone")
    parser.add_argument("--stages", type=int, help="the first N skills alone")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--side-by-side", type=int, default=1, help="trials of the script at a time")
    given = parser.parse_args()
    given.python = str(Path(given.python).absolute())
    with tempfile.TemporaryDirectory(prefix="lmmcl-trl-") as folder:
        text = yaml.safe_load(given.sweep.read_text())
        for grid in text["grids"]:
            grid["learning_rate"] = grid["learning_rate"][: given.rates]
            grid["recipe"] = grid["recipe"][-(given.recipes or 0) :]
        text["orders"] = {name: order[: given.stages] for name, order in text["orders"].items()}
        path = Path(folder, "sweep.yaml")
        path.write_text(yaml.safe_dump(text))
        print(json.dumps(compare(path, Path(folder), given), indent=1))


if __name__ == "__main__":
    main()
