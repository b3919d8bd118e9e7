"""Eight runs at once in one store, each on a simulated node of its own: how often each step is computed, and requests by kind.

    python tests/bench/shared_stores.py [--runs 8] [--store local|s3] [--folder FOLDER]

A node has a host name, a home and temporary files of its own, so that the others know nothing of its processes but what is in the
store. The sweeps overlap: all share the pre-trained model and a fine-tune, each window of merges is wanted by four runs, and the last two
runs are of one sweep. Each run is `lmmcl run --inline`. Prints requests (of a local store: operations on files) a step, and exits
with 1 where a step was computed twice or a bound is missed.

The bound follows from what a run asks: `COMPUTING` requests for a step that it computes, `LOOKING` for one that it only needs (is it
recorded, at the start, before it is needed, and for the report), `WAITING` each time that it looks again for what another run computes, and
`STARTING` for what a run asks once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from counted_s3 import counted_s3
from processes import PYTHON, python_of

from lmmcl.config.cluster import ClaimSettings
from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.ledger import Ledger

ROOT = Path(__file__).resolve().parents[2]
COMPUTING, LOOKING, WAITING, STARTING = 50, 35, 4, 80
WINDOW = 4
"""Merges of a sweep: each is in as many sweeps."""
SWEEP = """
name: run{number}
orders: {{main: [counting]}}
benchmarks: {{held_out: [colour]}}
training: {{max_steps: 2, examples: 16, global_batch_size: 8, precision: fp32}}
evaluation: {{precision: fp32, limit: 2}}
grids:
  - {{model: [tiny-onevision], recipe: [sa_proj], learning_rate: [1.0e-3], mitigation: [null, {merges}]}}
"""


def write_sweeps(folder: Path, runs: int) -> list[Sweep]:
    """The sweep of each node; the last two are one."""
    sweeps = []
    for node in range(runs):
        number = min(node, runs - 2)
        merges = ", ".join(f"{{wise_ft: {{alpha: {0.01 * (1 + number + place):.2f}}}}}" for place in range(WINDOW))
        file = folder / f"node{node}" / "sweep.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(SWEEP.format(number=number, merges=merges), encoding="utf-8")
        sweeps.append(load_sweep(file))
    return sweeps


def start(folder: Path, node: int, store: str, more: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A run on a node."""
    home = folder / f"node{node}"
    for name in ("tmp", "home", "notes"):
        (home / name).mkdir()
    base = python_of(ROOT)
    inside = str(ROOT / "tests" / "bench" / "inside_node")
    own = {
        "PYTHONPATH": os.pathsep.join([inside, base["PYTHONPATH"]]),
        "TMPDIR": str(home / "tmp"),
        "HOME": str(home / "home"),
        "XDG_CACHE_HOME": str(home / "home" / "cache"),
        "LMMCL_NODE": f"node{node}",
        "LMMCL_NODE_NOTES": str(home / "notes"),
        "LMMCL_NODE_STORE": "" if "://" in store else store,
    }
    words = [PYTHON, "-m", "lmmcl", "run", "sweep.yaml", "--store", store, "--inline", "--mlflow", "off"]
    with (home / "run.log").open("wb") as log:
        environment = {**os.environ, **base, **own, **more}
        return subprocess.Popen(words, cwd=home, env=environment, stdout=log, stderr=log)


@contextmanager
def store_of(kind: str, folder: Path) -> Iterator[tuple[str, dict[str, str], Counter[str]]]:
    """A store, what its clients need in their environment, and the requests of a server."""
    if kind == "local":
        yield str(folder / "store"), {}, Counter()
        return
    with counted_s3("store") as (store, more, counting):
        os.environ.update(more)  # this process looks into the store as well
        yield store, more, counting.requests


def run_all(folder: Path, runs: int, kind: str) -> dict[str, object]:
    """All runs to their ends: who computed what, and requests by kind."""
    sweeps = write_sweeps(folder, runs)
    with store_of(kind, folder) as (store, more, requests):
        started = time.monotonic()
        processes = [start(folder, node, store, more) for node in range(runs)]
        codes = [process.wait() for process in processes]
        seconds = time.monotonic() - started
        requests = Counter(requests)
        for node, code in enumerate(codes):
            if code:
                raise SystemExit(
                    f"node {node} ended with {code}:\n{(folder / f'node{node}' / 'run.log').read_text()[-3000:]}"
                )
        ledger, wanted = Ledger(store), [set(sweep.steps) for sweep in sweeps]
        steps = {key: step for sweep in sweeps for key, step in sweep.steps.items()}
        unrecorded = [step.path for step in steps.values() if not ledger.has(step)]
        left = [name for name in ("claims", "runs", ".partial") if ledger.sizes(name)]
    notes = [file.read_text() for file in sorted(folder.glob("node*/notes/computed"))]
    computed = Counter(line.split("\t")[1] for text in notes for line in text.splitlines())
    for file in folder.glob("node*/notes/operations-*.json"):
        requests.update(json.loads(file.read_text()))
    return {
        "store": kind,
        "runs": runs,
        "seconds": round(seconds, 1),
        "steps": len(steps),
        "wanted": sum(map(len, wanted)),
        "computed_once": sum(computed[key] == 1 for key in steps),
        "again": {steps[key].path if key in steps else key: times for key, times in computed.items() if times != 1},
        "unrecorded": unrecorded,
        "left": left,
        "by_node": {
            file.parent.parent.name: len(file.read_text().splitlines())
            for file in sorted(folder.glob("node*/notes/computed"))
        },
        "requests": dict(requests.most_common()),
    }


def bound(result: Mapping[str, object]) -> float:
    """The most requests that the runs may make (see the top of this file)."""
    runs, steps = int(str(result["runs"])), int(str(result["steps"]))
    looks = int(str(result["wanted"])) - steps
    waits = runs * float(str(result["seconds"])) / ClaimSettings().poll_s
    return COMPUTING * steps + LOOKING * looks + WAITING * waits + STARTING * runs


def table(result: Mapping[str, object]) -> list[str]:
    """What a person reads."""
    requests: Mapping[str, int] = result["requests"]  # type: ignore[assignment]
    steps, total, most = int(str(result["steps"])), sum(requests.values()), bound(result)
    by_kind: Counter[str] = Counter()
    for name, times in requests.items():
        by_kind[name.rsplit(" ", 1)[0]] += times
    lines = [
        f"{result['runs']} runs at once in one {result['store']} store, {result['seconds']} s: {result['computed_once']} of {steps} steps "
        f"computed once ({result['wanted']} wanted by the runs together)",
        f"{total} requests, {total / steps:.1f} a step; at most {most:.0f}, {most / steps:.1f} a step",
        "",
        "| request | times | a step | of these on |",
        "|---|---|---|---|",
    ]
    for kind, times in by_kind.most_common():
        folders = {name.rsplit(" ", 1)[1]: n for name, n in requests.items() if name.rsplit(" ", 1)[0] == kind}
        places = ", ".join(f"{folder} {n}" for folder, n in sorted(folders.items(), key=lambda item: -item[1])[:5])
        lines.append(f"| {kind} | {times} | {times / steps:.1f} | {places} |")
    return lines


def missed(result: Mapping[str, object]) -> list[str]:
    """What is not as it must be."""
    faults = []
    if result["computed_once"] != result["steps"] or result["again"]:
        faults.append(f"computed more than once: {result['again']}")
    if result["unrecorded"]:
        faults.append(f"not recorded: {result['unrecorded']}")
    if result["left"]:
        faults.append(f"left in the store: {result['left']}")
    requests: Mapping[str, int] = result["requests"]  # type: ignore[assignment]
    if sum(requests.values()) > bound(result):
        faults.append(f"{sum(requests.values())} requests, more than {bound(result):.0f}")
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--store", choices=["local", "s3"], default="local")
    parser.add_argument("--folder", type=Path, help="kept; default a temporary folder")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lmmcl-shared-")))
        result = run_all(folder.resolve(), arguments.runs, arguments.store)
    faults = missed(result)
    print("\n".join([*table(result), *(f"MISSED: {line}" for line in faults)]))
    print(json.dumps(result))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
