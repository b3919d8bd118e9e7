"""A process that has imported lmmcl with its libraries once, and forks a child for each command that it gets on standard input.

A line is a JSON object: `words` to run (or `poll`, a child's id), `cwd`, `environment`, `log`. An answer is one as well. No thread is
ever started here, so that a child is what a new process would be.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

MODULES = (
    "torch", "transformers", "matplotlib.figure", "plotly.graph_objects", "mlflow", "mlflow.tracking", "alembic", "sqlalchemy",
    "lmmcl.cli", "lmmcl.runner.command", "lmmcl.runner.run", "lmmcl.runner.inline", "lmmcl.evaluation.evaluate",
    "lmmcl.evaluation.engines.transformers", "lmmcl.evaluation.probes", "lmmcl.evaluation.judging.local_judge",
    "lmmcl.training.finetune", "lmmcl.training.stage.loop", "lmmcl.training.recovery.checksums", "lmmcl.weights.checkpoint",
    "lmmcl.weights.expert_routing", "lmmcl.reports.page.page", "lmmcl.reports.plots", "lmmcl.reports.pictures.divergence_plot",
    "lmmcl.ledger.packs.packing", "lmmcl.tracking.tracker", "lmmcl.inspection.gc", "lmmcl.inspection.audit",
)  # fmt: skip

ALLOCATOR = "jemalloc_bg_thd"
"""A thread of the memory allocator of pyarrow, which knows of forks."""


def main() -> None:
    """Serve until standard input ends."""
    wire = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for name in (*MODULES, *sys.argv[1:]):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # else each child's first collection would copy all of this memory
    threads = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    wire.write(json.dumps({"threads": [name for name in threads if name != ALLOCATOR][1:]}) + "\n")
    for line in sys.stdin:
        wish = json.loads(line)
        answer = _poll(wish["poll"]) if "poll" in wish else {"process": _fork(wish)}
        wire.write(json.dumps(answer) + "\n")


def _fork(wish: dict[str, Any]) -> int:
    process = os.fork()
    if process == 0:
        _run(wish)
    return process


def _run(wish: dict[str, Any]) -> NoReturn:
    """Be a new process that was started with these words."""
    os.setsid()
    log = os.open(wish["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.environ.update(wish["environment"])
    os.chdir(wish["cwd"])
    sys.argv = ["lmmcl", *wish["words"]]
    code: object = 1
    try:
        if "LMMCL_FAULTS" in wish["environment"]:
            import fault_points

            fault_points.follow_loaded()
            _be_quick()
        sys.modules["lmmcl.cli"].main()
    except SystemExit as ended:
        code = ended.code
    except BaseException:  # noqa: BLE001 - printed as Python does
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0)


def _be_quick() -> None:
    """Pauses of a second and more between tries are shorter here; there are as many."""
    from lmmcl.back_off import BackOff
    from lmmcl.ledger import store

    store.PATIENCE = BackOff(first=0.05, longest=0.5, retries=store.PATIENCE.retries)


def _poll(process: int) -> dict[str, Any]:
    """How a child has ended, and what it took; nothing while it runs."""
    ended, status, used = os.wait4(process, os.WNOHANG)
    if not ended:
        return {}
    return {"code": os.waitstatus_to_exitcode(status), "cpu": used.ru_utime + used.ru_stime}


if __name__ == "__main__":
    main()
