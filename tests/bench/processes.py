"""What benches that start whole families of processes share: CPU seconds of every process below one, and a mark that is set in one of them.

Ray's processes are not waited for by ours, so what they used can only be read while they live: a few times a second.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from sides import with_bytecode

LOOK_SECONDS = 0.1


class CpuWatch(threading.Thread):
    """Adds up the CPU seconds of every process below this one, which a busy machine does not stretch as it does the clock.

    The last moments of a process, up to `every` seconds, are missed.
    """

    def __init__(self, every: float = LOOK_SECONDS) -> None:
        super().__init__(daemon=True)
        self._every = every
        self._seen: dict[tuple[int, float], tuple[str, float]] = {}
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(self._every):
            self.look()

    def look(self) -> None:
        """Read what every process below this one has used so far."""
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):  # it has just ended
                used = process.cpu_times()
                at = process.pid, process.create_time()
                name = self._seen[at][0] if at in self._seen else ""
                if not name.startswith("ray::") or name == "ray::IDLE":  # it may come to do something else
                    name = process_name(process)
                self._seen[at] = name, used.user + used.system

    def end(self) -> float:
        """Stop looking; the CPU seconds of all processes."""
        self._ended.set()
        self.join()
        return sum(used for _, used in self._seen.values())

    def by_name(self) -> dict[str, float]:
        """CPU seconds by what processes call themselves, the largest first."""
        found: Counter[str] = Counter()
        for name, used in self._seen.values():
            found[name] += used
        return dict(found.most_common())


def process_name(process: psutil.Process) -> str:
    """What a process calls itself: its program, its script, or what Ray has it do now."""
    words = process.cmdline() or [process.name()]
    if words[0].startswith("ray::"):
        return words[0].split("(")[0].strip()
    if Path(words[0]).name.startswith("python"):
        script = next((word for word in words[1:] if not word.startswith("-")), "")
        return f"python {Path(script).name}" if "-c" not in words[1:3] else "python -c"
    return Path(words[0]).name


@dataclass
class Spent:
    """Until a mark was set, or a command ended: seconds on the clock, CPU seconds, and these by process."""

    wall: float
    cpu: float
    by_name: dict[str, float] = field(default_factory=dict)


def until_mark(command: Sequence[str], folder: Path, environment: Mapping[str, str], *, timeout: float = 300) -> Spent:
    """Run `command` until one of its processes makes the file that the variable BENCH_MARK names; then end it.

    Raises SystemExit with the end of its output where it ends before, or makes no mark within `timeout`.
    """
    with tempfile.TemporaryDirectory(prefix="lmmcl-mark-") as temporary:
        mark, log = Path(temporary, "mark"), Path(temporary, "log")
        watch, started = CpuWatch(), time.monotonic()
        watch.start()
        with log.open("w") as written:
            process = subprocess.Popen(
                list(command),
                cwd=folder,
                env={**with_bytecode(), **environment, "BENCH_MARK": str(mark)},
                stdout=written,
                stderr=subprocess.STDOUT,
            )
        try:
            while not mark.exists() and process.poll() is None and time.monotonic() - started < timeout:
                time.sleep(0.02)
            wall = time.monotonic() - started
            watch.look()
            cpu = watch.end()
            if not mark.exists():
                raise SystemExit(f"no mark after {wall:.0f} s:\n{log.read_text()[-3000:]}")
            return Spent(wall, cpu, watch.by_name())
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what was started, Ray's processes with it; what does not go is killed by its number."""
    with suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs([psutil.Process(process.pid)], timeout=45)
        for each in [*alive, *(one for one in family if one.is_running())]:
            with suppress(psutil.NoSuchProcess):
                each.kill()
    process.wait()


def marking(folder: Path, module: str, function: str) -> dict[str, str]:
    """Environment in which the first call of `module`.`function`, in whatever process, sets the mark.

    A `sitecustomize` in `folder` wraps the function once its module is imported, so that any build can be watched as it is.
    """
    (folder / "sitecustomize.py").write_text(_HOOK.format(module=module, function=function))
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths)}


_HOOK = """
import os, sys, threading
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import PathFinder

MODULE, FUNCTION = "{module}", "{function}"


class _Finder(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != MODULE or "BENCH_MARK" not in os.environ:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None:
            return None
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            original = getattr(module, FUNCTION)

            def marked(*arguments, **more):
                if not os.path.exists(os.environ["BENCH_MARK"]):
                    open(os.environ["BENCH_MARK"], "w").close()
                return original(*arguments, **more)

            setattr(module, FUNCTION, marked)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _Finder())
"""


def python_of(root: Path) -> dict[str, str]:
    """Environment in which Python imports the package of `root`, with one thread a sum."""
    paths = [str(root), str(root / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


PYTHON = sys.executable
