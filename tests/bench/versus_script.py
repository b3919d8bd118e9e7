"""A grid by `lmmcl run` and by the script that people write now (`plain_script.py`): wall time, bytes, scores.

    python tests/bench/versus_script.py [--sweep sweeps/quickstart.yaml] [--rates N] [--recipes N]

The script is treated kindly: two of its trials run side by side on two cores, the pre-trained model is asked once, and
nothing goes wrong that it would have to be run again for. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from lmmcl.ledger import Ledger
from lmmcl.spec.sweep import Sweep, load_sweep

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu"}


def script(*words: object) -> None:
    command = [sys.executable, str(HERE / "plain_script.py"), *map(str, words)]
    subprocess.run(command, check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def by_script(path: Path, sweep: Sweep, folder: Path, cores: int) -> None:
    """Every stage a process, then its evaluation a process; `cores` trials side by side."""

    def walk(trial: int) -> None:
        parent: object = "base"
        for stage in range(1, len(sweep.trials[trial].stages)):
            out = folder / f"{trial}-{stage}"
            script("train", path, trial, stage, parent, out)
            parent = out / "model"
            script("evaluate", path, trial, stage, parent, out)

    with ThreadPoolExecutor(cores) as pool:
        base = pool.submit(script, "evaluate", path, 0, 0, "base", folder / "base")
        for walked in [pool.submit(walk, trial) for trial in range(len(sweep.trials))]:
            walked.result()
        base.result()


def by_lmmcl(path: Path, store: Path, cores: int) -> None:
    cluster = store.with_suffix(".yaml")
    cluster.write_text(f"ray: {{cpus: {cores}}}\n")
    code = "from lmmcl.cli import main; main()"
    words = ["run", str(path), "--store", str(store), "--cluster", str(cluster)]
    subprocess.run([sys.executable, "-c", code, *words], check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)


def size(folder: Path, pattern: str = "*") -> int:
    return sum(path.stat().st_size for path in folder.rglob(pattern) if path.is_file())


def score_differences(sweep: Sweep, ledger: Ledger, folder: Path) -> list[float]:
    found = []
    for number, trial in enumerate(sweep.trials):
        for stage in trial.stages:
            at = folder / (f"{number}-{stage.number}" if stage.number else "base")
            theirs = json.loads((at / "scores.json").read_text())
            for step in stage.evaluations:
                record = ledger.find(step)
                assert record is not None
                found.append(abs(record["score"] - theirs[step.label]))
    return found


def timed(work: Any, *arguments: Any) -> float:
    start = time.monotonic()
    work(*arguments)
    return time.monotonic() - start


def compare(path: Path, folder: Path, cores: int) -> dict[str, Any]:
    sweep, ledger = load_sweep(path), Ledger(str(folder / "store"))
    ours = timed(by_lmmcl, path, folder / "store", cores)
    print(f"lmmcl {ours:.0f} s", file=sys.stderr)
    theirs = timed(by_script, path, sweep, folder / "script", cores)
    deltas = size(folder / "store" / "checkpoints", "*.safetensors")
    models = sum(size(each) for each in (folder / "script").glob("*/model"))
    trainer = sum(size(each) for each in (folder / "script").glob("*/trainer"))
    differences = score_differences(sweep, ledger, folder / "script")
    return {
        "trials": len(sweep.trials),
        "cores": cores,
        "load_before": os.getloadavg()[0],
        "seconds": {"lmmcl": round(ours, 1), "script": round(theirs, 1), "ratio": round(theirs / ours, 2)},
        "bytes": {
            "lmmcl": deltas,
            "script_models": models,
            "script_with_trainer_checkpoints": models + trainer,
            "ratio_models": round(models / deltas, 2),
            "ratio_with_trainer_checkpoints": round((models + trainer) / deltas, 2),
        },
        "scores": {
            "compared": len(differences),
            "equal": sum(each < 1e-9 for each in differences),
            "largest_difference_points": max(differences),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", type=Path, default=HERE.parents[1] / "sweeps" / "quickstart.yaml")
    parser.add_argument("--rates", type=int, help="take the first N learning rates of each grid alone")
    parser.add_argument("--recipes", type=int, help="take the last N recipes of each grid alone")
    parser.add_argument("--cores", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lmmcl-versus-") as folder:
        text = yaml.safe_load(given.sweep.read_text())
        for grid in text["grids"]:
            grid["learning_rate"] = grid["learning_rate"][: given.rates]
            grid["recipe"] = grid["recipe"][-(given.recipes or 0) :]
        path = Path(folder, "sweep.yaml")
        path.write_text(yaml.safe_dump(text))
        print(json.dumps(compare(path, Path(folder), given.cores), indent=1))


if __name__ == "__main__":
    main()
