"""The process that computes a step, somewhere on the cluster: a signal to it, and what it wrote before it died."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

LOG_LINES = 15


@dataclass(frozen=True)
class ProcessLocation:
    """A process of the cluster; `log` is the file of its standard error, or empty."""

    node: str
    process: int
    log: str

    @property
    def there(self) -> NodeAffinitySchedulingStrategy:
        """On that node, or not at all."""
        return NodeAffinitySchedulingStrategy(node_id=self.node, soft=False)


def this_process() -> ProcessLocation:
    """Where it runs, reported while it lives: nobody can ask it once it is dead."""
    link = Path("/proc/self/fd/2")
    return ProcessLocation(
        ray.get_runtime_context().get_node_id(), os.getpid(), str(link.readlink()) if link.exists() else ""
    )


async def terminate(where: ProcessLocation) -> None:
    """Send SIGTERM to a process, here or on another node; one that is gone, or whose node is, needs none."""
    if where.node == ray.get_runtime_context().get_node_id():
        with suppress(ProcessLookupError):
            os.kill(where.process, signal.SIGTERM)
    else:
        with suppress(RayError):
            await _terminate.options(scheduling_strategy=where.there).remote(where.process)


async def log_end(where: ProcessLocation | None) -> str:
    """The last lines that a process wrote; empty when its node is gone or it wrote none."""
    if where is None or not where.log:
        return ""
    try:
        return await _tail.options(scheduling_strategy=where.there).remote(where.log)
    except RayError:
        return ""


@ray.remote(num_cpus=0, max_retries=0)
def _terminate(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGTERM)


@ray.remote(num_cpus=0, max_retries=0)
def _tail(file: str) -> str:
    lines = Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
    printed = [line for line in lines if not line.startswith(":")]  # Ray marks with a colon which task began
    return "\n".join(printed[-LOG_LINES:])
