"""Ray tasks that use GPUs, each in a process that sees the GPUs which Ray gave it.

Ray keeps the process of a finished task for the next one and hands that other GPUs, but a process stays with the GPUs that CUDA
found first. Where a node has more GPUs than a task takes, two tasks would come to compute on one of them while another is idle.
There each task has a process of its own; elsewhere processes stay, and with them the models that they have loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import ray


def gpu_task(body: Callable[..., Any], gpus: float) -> Any:
    """The Ray task that calls `body` with `gpus` GPUs."""
    return _task(body, ends=gpus > 0 and not takes_all_gpus(gpus))


def takes_all_gpus(gpus: float) -> bool:
    """Whether a task with `gpus` (one at least is its own or shared) takes all that a node has, wherever it may be placed now."""
    on_nodes = [node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"]]
    return 0 < max(on_nodes, default=0) <= max(1, gpus)


@cache  # Ray would keep another copy of the function for each
def _task(body: Callable[..., Any], *, ends: bool) -> Any:
    return ray.remote(max_calls=1)(body) if ends else ray.remote(body)
