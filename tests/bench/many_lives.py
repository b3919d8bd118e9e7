"""A sweep that is killed at random moments and started again, fifty times: what is computed twice, and what the killed runs leave.

    python tests/bench/many_lives.py [--lives 50] [--ray-every 10] [--folder FOLDER] [--seed N]

Each life is `lmmcl run`, ended by SIGKILL; every tenth is on Ray, the others in one process. The last one is let end. A step may be
begun again only if it was not recorded, and no more than one step a kill is (on Ray: one for each CPU, and their parents). At the end the
store, the temporary files and MLflow hold no more than those of a run that nothing happened to, but for what the table says. Exits
with 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
from holdings import Family, Files
from processes import PYTHON, python_of

from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.inspection.audit import check_store
from lmmcl.ledger import Ledger

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 300.0
"""Seconds that a life may take to begin another step."""
OUTLIVE = 240.0
"""Seconds that Ray's processes may take to notice, on a busy machine, that the run is gone."""
SESSIONS = 7
"""Of Ray's sessions: five of ended runs stay, one more is of a run killed before it could mark its own, and the last one's."""
AT_ONCE = {"inline": 1, "ray": 6}
"""Steps that may be under way when a run is killed."""
SWEEP = """
name: lives
orders: {{main: [counting]}}
benchmarks: {{held_out: [colour]}}
training: {{max_steps: 40, examples: 320, global_batch_size: 8, precision: fp32}}
evaluation: {{precision: fp32, limit: 2, updates: [10]}}
grids:
  - {{model: [tiny-onevision], recipe: [sa_proj, gate_up], learning_rate: [1.0e-3], mitigation: [null, {merges}]}}
"""


def environment(folder: Path) -> dict[str, str]:
    """Of a life: temporary files below the folder, and a note of each step that is begun."""
    for name in ("tmp", "home"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    base = python_of(ROOT)
    inside = str(ROOT / "tests" / "bench" / "inside_node")
    own = {"TMPDIR": str(folder / "tmp"), "RAY_TMPDIR": str(folder / "tmp"), "HOME": str(folder / "home")}
    node = {"LMMCL_NODE": os.uname().nodename, "LMMCL_NODE_NOTES": str(folder)}
    return {**os.environ, **base, **own, **node, "PYTHONPATH": os.pathsep.join([inside, base["PYTHONPATH"]])}


def begin(folder: Path, kind: str, store: str) -> subprocess.Popen[bytes]:
    """One life."""
    more = ["--inline"] if kind == "inline" else ["--cluster", "two.yaml"]
    words = [PYTHON, "-m", "lmmcl", "run", "lives.yaml", "--store", store, *more]
    with (folder / "run.log").open("ab") as log:
        return subprocess.Popen(
            words, cwd=folder, env=environment(folder), stdout=log, stderr=log, start_new_session=True
        )


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the command; what Ray started ends by itself, and is waited for."""
    family = [psutil.Process(pid) for pid in Family(process.pid).pids() if psutil.pid_exists(pid)]
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
    end = time.monotonic() + OUTLIVE
    while alive := [one for one in family if _is_alive(one)]:
        assert time.monotonic() < end, f"{[one.name() for one in alive]} outlive the run"
        time.sleep(0.2)


def _is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def live(folder: Path, steps: int, lives: int, ray_every: int, chance: random.Random) -> dict[str, Any]:
    """All lives, and the last one to its end. A quarter ends at some moment of its start, the others after a few more steps."""
    store, started = str(folder / "store"), time.monotonic()
    ended: list[dict[str, Any]] = []
    while len(ended) < lives:
        life = len(ended) + 1
        kind = "ray" if life % ray_every == 0 else "inline"
        process, since = begin(folder, kind, store), time.monotonic()
        early = chance.random() < 0.25
        more = chance.randint(1, max(1, 2 * steps // lives - 1))
        _wait(process, folder, chance.uniform(0.2, 10.0) if early else PATIENCE, sum(_begun(folder).values()) + more)
        time.sleep(chance.uniform(0.0, 0.5))
        if process.poll():
            raise SystemExit(f"life {life} ended by itself:\n{(folder / 'run.log').read_text()[-3000:]}")
        if process.poll() is None:
            kill(process)
        begun = sum(_begun(folder).values())
        ended.append({"life": life, "kind": kind, "seconds": round(time.monotonic() - since, 1), "begun": begun})
        print(json.dumps({**ended[-1], "left": _left(folder)}), file=sys.stderr, flush=True)
    last = begin(folder, "inline", store)
    if last.wait() != 0:
        raise SystemExit(f"the last life failed:\n{(folder / 'run.log').read_text()[-3000:]}")
    return {"lives": ended, "seconds": round(time.monotonic() - started, 1)}


def _wait(process: subprocess.Popen[bytes], folder: Path, seconds: float, begun: int) -> None:
    """Until that many steps were begun, or that much time has passed, or the run has ended."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end and sum(_begun(folder).values()) < begun:
        time.sleep(0.05)


def _begun(folder: Path) -> Counter[str]:
    """How often each step was begun."""
    notes = folder / "computed"
    return Counter(line.split("\t")[1] for line in notes.read_text().splitlines()) if notes.exists() else Counter()


def _left(folder: Path) -> dict[str, Any]:
    """What is in the store and among temporary files besides records."""
    store, temporary = folder / "store", folder / "tmp"
    counts = {name: len(list((store / name).glob("*"))) for name in ("claims", ".partial", "runs", "index", "failures")}
    sessions = len(list(temporary.glob("ray/session_2*")))
    others = [path for path in temporary.iterdir() if path.name != "ray"]
    files = sum(Files.below(path).files for path in others if path.is_dir())
    return {**counts, "sessions": sessions, "temporary": len(others), "files": files}


def mlflow_runs(store: Path) -> Counter[str]:
    """The states of the runs of trials in the store's MLflow."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(ids, "tags.`lmmcl.kind` = 'trial'", max_results=5000)
    return Counter(f"{run.data.tags['lmmcl.trial_key']} {run.info.status}" for run in runs)


def judge(
    folder: Path, sweep: Sweep, lives: list[dict[str, Any]], whole: Mapping[str, list[float]]
) -> tuple[list[str], list[str]]:
    """The table, and what is not as it must be."""
    ledger, begun, left = Ledger(str(folder / "store")), _begun(folder), _left(folder)
    again = sum(times - 1 for times in begun.values())
    allowed = sum(AT_ONCE[life["kind"]] for life in lives)
    runs = mlflow_runs(folder / "store")
    expected = {f"{trial.key} FINISHED" for trial in sweep.trials}
    damages = check_store(ledger).damages
    rows = {
        "lives that were killed": len(lives),
        "of these on Ray": sum(life["kind"] == "ray" for life in lives),
        "steps": len(sweep.steps),
        "steps begun again (at most what was under way)": f"{again} (of at most {allowed})",
        "records damaged": len(damages),
        "scores other than those of an undisturbed run": sum(
            scores(sweep, ledger)[key] != value for key, value in whole.items()
        ),
        "trials in MLflow, each once and finished": f"{len(runs)} of {len(expected)}",
        "half-written folders, checkpoints left": f"{left['.partial']}, {left['runs']}",
        "leases left (void; deleted by a run a day later)": f"{left['claims']} (at most one a kill)",
        "Ray's sessions left": f"{left['sessions']} (at most {SESSIONS})",
        "other temporary folders, files in them": f"{left['temporary']}, {left['files']}",
    }
    faults = []
    if again > allowed:
        faults.append(f"{again} steps were begun again")
    if damages or any(scores(sweep, ledger)[key] != value for key, value in whole.items()):
        faults.append(f"damaged or other scores: {damages}")
    if set(runs) != expected or any(times > 1 for times in runs.values()):
        faults.append(f"MLflow: {runs}")
    if left["claims"] > len(lives) or left[".partial"] or left["runs"] or left["sessions"] > SESSIONS:
        faults.append(f"left behind: {left}")
    return [f"| {name} | {value} |" for name, value in rows.items()], faults


def scores(sweep: Sweep, ledger: Ledger) -> dict[str, list[float]]:
    """Every question's score by step."""
    records = {key: ledger.find(step) for key, step in sweep.steps.items() if step.kind == "evaluate"}
    return {key: record["sample_scores"] for key, record in records.items() if record}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lives", type=int, default=50)
    parser.add_argument("--ray-every", type=int, default=10)
    parser.add_argument("--merges", type=int, default=40, help="trials for each of two recipes, besides the plain one")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--folder", type=Path, help="a short path, kept; default a temporary folder")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    with ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ml-", dir="/tmp")))
        folder = folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        merges = ", ".join(
            f"{{wise_ft: {{alpha: {(place + 1) / (arguments.merges + 1):.4f}}}}}" for place in range(arguments.merges)
        )
        (folder / "lives.yaml").write_text(SWEEP.format(merges=merges), encoding="utf-8")
        (folder / "two.yaml").write_text("ray: {cpus: 2}\n", encoding="utf-8")
        sweep = load_sweep(folder / "lives.yaml")
        result = live(folder, len(sweep.steps), arguments.lives, arguments.ray_every, random.Random(arguments.seed))
        undisturbed = folder / "undisturbed"
        alone = [PYTHON, "-m", "lmmcl", "run", "lives.yaml", "--store", str(undisturbed), "--inline", "--mlflow", "off"]
        subprocess.run(alone, cwd=folder, env={**os.environ, **python_of(ROOT)}, check=True, stdout=subprocess.DEVNULL)
        table, faults = judge(folder, sweep, result["lives"], scores(sweep, Ledger(str(undisturbed))))
    print("\n".join([f"{result['seconds']} s", *table, *(f"MISSED: {line}" for line in faults)]))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
