"""A grid by `lmmcl run` and by the script that people write now (`plain_script.py`): wall time, bytes, scores.

    python tests/bench/versus_script.py [--sweep sweeps/quickstart.yaml] [--rates N] [--recipes N] [--side-by-side 2]
    python tests/bench/versus_script.py --exact [--rates N] [--recipes N]

The script goes through the grid one process after another, each with all cores; the pre-trained model is asked once, and
nothing goes wrong that it would have to be run again for. `--side-by-side 2` is kinder than what people do: two trials at a
time, each with its share of the cores, as lmmcl schedules them. Prints one JSON object.

What "the same scores" means. lmmcl computes the logits of the answers alone, the script those of all tokens: the same sum in
another order, so the weights differ in their last bits (3e-8) after two updates, by 1e-5 after fifty, and now and then a question
whose two best words are nearly tied is answered otherwise. With `--exact` lmmcl computes all logits too (for one
trial, if no more rates or recipes are asked for); then weights and scores are the script's to the last bit, in training (`tests/training/stage/test_plain_trainer.py`)
as in evaluation, and every difference is an error. Without it, the answers to at least SAME of the questions must be worth the same.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.ledger import Ledger

HERE = Path(__file__).parent
SAME = 0.99
"""Share of questions whose answers must be worth the same where only rounding differs."""
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu"}


def by_script(path: Path, sweep: Sweep, folder: Path, cores: int, side_by_side: int) -> None:
    """Every stage a process, then its evaluation a process; several trials side by side, with their share of the cores."""
    environment = {**ENVIRONMENT, "OMP_NUM_THREADS": str(max(1, cores // side_by_side))}

    def script(*words: object) -> None:
        command = [sys.executable, str(HERE / "plain_script.py"), *map(str, words)]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def walk(trial: int) -> None:
        parent: object = "base"
        for stage in range(1, len(sweep.trials[trial].stages)):
            out = folder / f"{trial}-{stage}"
            script("train", path, trial, stage, parent, out)
            parent = out / "model"
            script("evaluate", path, trial, stage, parent, out)

    with ThreadPoolExecutor(side_by_side) as pool:
        base = pool.submit(script, "evaluate", path, 0, 0, "base", folder / "base")
        for walked in [pool.submit(walk, trial) for trial in range(len(sweep.trials))]:
            walked.result()
        base.result()


def by_lmmcl(path: Path, store: Path, cores: int, *, exact: bool = False) -> None:
    cluster = store.with_suffix(".yaml")
    cluster.write_text(f"ray: {{cpus: {cores}}}\n")
    code = "from lmmcl.cli import main; main()"
    words = ["run", str(path), "--store", str(store), "--cluster", str(cluster)]
    if exact:  # in one process, where this reaches it
        code = f"from lmmcl.training import trainer; trainer.answer_span = lambda labels: labels.shape[1]; {code}"
        words.append("--inline")
    subprocess.run([sys.executable, "-c", code, *words], check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)


def size(folder: Path, pattern: str = "*") -> int:
    return sum(path.stat().st_size for path in folder.rglob(pattern) if path.is_file())


def compare_scores(sweep: Sweep, ledger: Ledger, folder: Path) -> dict[str, Any]:
    """Both sides' scores, benchmark by benchmark and question by question."""
    scores, questions, differ = [], 0, 0
    for number, trial in enumerate(sweep.trials):
        for stage in trial.stages:
            at = folder / (f"{number}-{stage.number}" if stage.number else "base")
            theirs = json.loads((at / "scores.json").read_text())
            for step in stage.evaluations:
                record = ledger.find(step)
                assert record is not None
                pairs = list(zip(record["sample_scores"], theirs[step.label], strict=True))
                scores.append(abs(100 * sum(ours - other for ours, other in pairs) / len(pairs)))
                questions += len(pairs)
                differ += sum(ours != other for ours, other in pairs)
    return {
        "compared": len(scores),
        "equal": sum(each < 1e-9 for each in scores),
        "largest_difference_points": round(max(scores), 3),
        "questions": questions,
        "questions_of_another_worth": differ,
        "share_of_the_same_worth": round(1 - differ / questions, 5),
    }


class CpuWatch(threading.Thread):
    """Adds up the CPU seconds of every process below this one, which a busy machine does not stretch as it does the clock.

    Looked at twice a second, so the last moments of a process are missed; Ray's processes are not waited for by ours, and so
    could not be asked for afterwards.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._seen: dict[tuple[int, float], float] = {}
        self._ended = threading.Event()

    def run(self) -> None:
        me = psutil.Process()
        while not self._ended.wait(0.5):
            for process in me.children(recursive=True):
                with suppress(psutil.Error):  # it has just ended
                    used = process.cpu_times()
                    self._seen[process.pid, process.create_time()] = used.user + used.system

    def end(self) -> float:
        self._ended.set()
        self.join()
        return sum(self._seen.values())


def timed(work: Any, *arguments: Any, **more: Any) -> tuple[float, float]:
    """Seconds on the clock, and of the CPU, that `work` takes."""
    watch, start = CpuWatch(), time.monotonic()
    watch.start()
    try:
        work(*arguments, **more)
    finally:
        used = watch.end()
    return time.monotonic() - start, used


def compare(path: Path, folder: Path, cores: int, side_by_side: int, *, exact: bool) -> dict[str, Any]:
    sweep, ledger = load_sweep(path), Ledger(str(folder / "store"))
    ours, our_cpu = timed(by_lmmcl, path, folder / "store", cores, exact=exact)
    print(f"lmmcl {ours:.0f} s", file=sys.stderr)
    theirs, their_cpu = timed(by_script, path, sweep, folder / "script", cores, side_by_side)
    deltas = size(folder / "store" / "checkpoints", "*.safetensors")
    models = sum(size(each) for each in (folder / "script").glob("*/model"))
    trainer = sum(size(each) for each in (folder / "script").glob("*/trainer"))
    return {
        "trials": len(sweep.trials),
        "cores": cores,
        "side_by_side": side_by_side,
        "load_before": os.getloadavg()[0],
        "seconds": {"lmmcl": round(ours, 1), "script": round(theirs, 1), "ratio": round(theirs / ours, 2)},
        "cpu_seconds": {
            "lmmcl": round(our_cpu, 1),
            "script": round(their_cpu, 1),
            "ratio": round(their_cpu / our_cpu, 2),
        },
        "bytes": {
            "lmmcl": deltas,
            "script_models": models,
            "script_with_trainer_checkpoints": models + trainer,
            "ratio_models": round(models / deltas, 2),
            "ratio_with_trainer_checkpoints": round((models + trainer) / deltas, 2),
        },
        "scores": compare_scores(sweep, ledger, folder / "script"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", type=Path, default=HERE.parents[1] / "sweeps" / "quickstart.yaml")
    parser.add_argument("--rates", type=int, help="take the first N learning rates of each grid alone")
    parser.add_argument("--recipes", type=int, help="take the last N recipes of each grid alone")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--side-by-side", type=int, default=1, help="trials of the script at a time")
    parser.add_argument("--exact", action="store_true", help="all logits: the scores must be equal")
    given = parser.parse_args()
    if given.exact:
        given.rates, given.recipes = given.rates or 1, given.recipes or 1
        given.side_by_side = given.cores  # one thread, as in a stage of lmmcl: sums of several are in another order
    with tempfile.TemporaryDirectory(prefix="lmmcl-versus-") as folder:
        text = yaml.safe_load(given.sweep.read_text())
        for grid in text["grids"]:
            grid["learning_rate"] = grid["learning_rate"][: given.rates]
            grid["recipe"] = grid["recipe"][-(given.recipes or 0) :]
        path = Path(folder, "sweep.yaml")
        path.write_text(yaml.safe_dump(text))
        found = compare(path, Path(folder), given.cores, given.side_by_side, exact=given.exact)
    print(json.dumps(found, indent=1))
    if found["scores"]["share_of_the_same_worth"] < (1.0 if given.exact else SAME):
        sys.exit("the scores are not the same")


if __name__ == "__main__":
    main()
