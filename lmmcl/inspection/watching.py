"""A sweep watched beside a run: its status again and again, on one screen or as lines of a log (`lmmcl status --watch`)."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace

from rich.console import Console
from rich.live import Live

from lmmcl.config.sweep import Sweep
from lmmcl.inspection.remaining_time import SteadyEstimate
from lmmcl.inspection.status import Looks, SweepStatus, headline, status_view
from lmmcl.ledger import Ledger
from lmmcl.search.run_context import RunContext

SILENCE = 25.0
"""Seconds after which a watching log gets a line although nothing has changed."""
TOLD = 3
"""Workers that one line of a log tells of."""


def watch(
    sweep: Sweep,
    ledger: Ledger,
    console: Console,
    *,
    every: float = 5.0,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> SweepStatus:
    """Refresh the status every few seconds until all is recorded (or the reader interrupts), and return the last one.

    Where the output is not a terminal, a line is written for each change, and one at least every half a minute.
    """
    looks, estimate = Looks(RunContext.resolve(sweep, ledger)), SteadyEstimate()
    printed, last = "", now()
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            status = looks.status()
            status = replace(status, seconds_left=estimate.update(status.seconds_left, now()))
            if console.is_terminal:
                room = max(5, console.height - len(status.working) - 8)
                live.update(status_view(status, room, gpu_use()), refresh=True)
            elif _counts(status) != printed or now() - last >= SILENCE:
                printed, last = _counts(status), now()
                doing = "".join(f"; {work}" for work in status.working[:TOLD])
                console.print(headline(status) + doing, markup=False, highlight=False, soft_wrap=True)
            if status.is_done:
                return status
            sleep(every)


def _counts(status: SweepStatus) -> str:
    """What of the headline is a change that a log is to tell, and not the passing of time."""
    return headline(replace(status, seconds_left=None))


def gpu_use() -> str:
    """How busy this machine's NVIDIA GPUs are; empty where it has none."""
    if shutil.which("nvidia-smi") is None:
        return ""
    query = ["nvidia-smi", "--query-gpu=index,utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, check=True, timeout=5).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return ""
    rows = [line.split(", ") for line in lines if line.count(", ") == 2]
    return " · ".join(
        f"GPU {index} {busy} %, {int(used) / 1000:.1f} GB" for index, busy, used in rows if used.isdigit()
    )
