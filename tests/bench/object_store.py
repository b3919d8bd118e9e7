"""Plan, status and report of a sweep in an object store that takes 30 ms for an answer, and a run that finds nothing to do: requests.

    python tests/bench/object_store.py [--trials 100] [--delay 0.03]

The store is in memory; a listing takes one request for each thousand names, as of S3. `cold` is without an index. `one by one` is
what a build without an index needs: a read for each step. `rerun` is a command that finds its 30 steps recorded in a local S3 server,
which counts what it is asked; its first run computes them. Prints a table and one JSON object.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

sys.path.insert(0, str(Path(__file__).parents[1]))

from counted_s3 import counted_s3
from fsspec import register_implementation
from fsspec.implementations.memory import MemoryFileSystem
from made import write_sweep
from rich.console import Console
from synthetic_ledger import fill

from lmmcl.config.sweep import load_sweep
from lmmcl.inspection.status import sweep_status
from lmmcl.ledger import Ledger
from lmmcl.planning.plan import make_plan
from lmmcl.runner.reporting.report_command import report_sweep

SWEEP = """
name: wide
orders:
  main: [birds, counting, microscopy, digits, clock]
benchmarks: {{held_out: [colour, shape, size, pattern, presence, chart, characters, position]}}
evaluation: {{limit: 50}}
grids:
  - {{model: [tiny-onevision], recipe: [llm, sa_proj], learning_rate: [{rates}]}}
"""

THIRTY_STEPS = """
name: thirty
orders: {main: [counting, clock]}
benchmarks: {held_out: [colour, shape, size]}
training: {max_steps: 1, examples: 8, global_batch_size: 8, precision: fp32}
evaluation: {precision: fp32, limit: 2}
grids:
  - {model: [tiny-onevision], recipe: [sa_proj, gate_up], learning_rate: [1.0e-3]}
"""


class Slow(MemoryFileSystem):
    """A store in memory that lets each request wait."""

    protocol = "slow"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    requests: ClassVar[list[float]] = []
    lock = threading.Lock()
    delay = 0.0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.removeprefix("slow://")))

    def _wait(self) -> None:
        with self.lock:
            self.requests.append(time.monotonic())
        time.sleep(self.delay)

    def cat_file(self, path: str, *args: Any, **kwargs: Any) -> bytes:
        self._wait()
        return super().cat_file(path, *args, **kwargs)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        self._wait()
        super().pipe_file(path, value, mode=mode, **kwargs)

    def find(self, path: str, *args: Any, **kwargs: Any) -> Any:
        found = super().find(path, *args, **kwargs)
        for _ in range(1 + len(found) // 1000):
            self._wait()
        return found


def rerun_requests(folder: Path) -> dict[str, float]:
    """What a run asks of a store in S3 that has all its 30 steps."""
    sweep = write_sweep(folder, THIRTY_STEPS, "thirty.yaml")
    assert len(load_sweep(sweep).steps) == 30
    with counted_s3("store") as (store, more, counting):
        command = [sys.executable, "-m", "lmmcl", "run", str(sweep), "--store", store, "--inline", "--mlflow", "off"]
        seconds = 0.0
        for _ in range(2):
            counting.requests.clear()
            started = time.perf_counter()
            subprocess.run(command, check=True, env={**os.environ, **more}, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - started
        print("; ".join(f"{count} {kind}" for kind, count in counting.requests.most_common()))
        return {"seconds": seconds, "requests": counting.requests.total()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--delay", type=float, default=0.03)
    arguments = parser.parse_args()
    register_implementation("slow", Slow, clobber=True)
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="lmmcl-bench-") as temporary:
        folder = Path(temporary)
        rates = ", ".join(f"{1e-5 * (place + 1):.5f}" for place in range(arguments.trials // 2))
        sweep = load_sweep(write_sweep(folder, SWEEP.format(rates=rates)))
        fill(sweep, folder / "store", questions=50, updates=20)
        system = Slow()
        for file in (folder / "store").rglob("*"):
            if file.is_file():
                MemoryFileSystem.pipe_file(system, f"/bucket/{file.relative_to(folder / 'store')}", file.read_bytes())
        ledger, steps = Ledger("slow:///bucket"), list(sweep.steps.values())

        def report() -> None:
            nowhere = Console(file=io.StringIO(), width=200)
            report_sweep(sweep, ledger, format="table", to=None, mlflow=None, console=nowhere)

        looks: dict[str, Callable[[], object]] = {
            "cold plan": lambda: make_plan(sweep, ledger),
            "plan": lambda: make_plan(sweep, ledger),
            "status": lambda: sweep_status(sweep, ledger),
            "report": report,
        }
        Slow.delay = arguments.delay
        for name, look in looks.items():
            Slow.requests.clear()
            started = time.perf_counter()
            look()
            found[name] = {"seconds": time.perf_counter() - started, "requests": len(Slow.requests)}
        found["rerun"] = rerun_requests(folder)
    found["one by one"] = {"seconds": len(steps) * arguments.delay, "requests": len(steps)}
    for name, figures in found.items():
        print(f"{name:12} {figures['seconds']:7.2f} s  {figures['requests']:6.0f} requests")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
