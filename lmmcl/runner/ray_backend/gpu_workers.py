"""Processes that compute on GPUs: each keeps the GPUs that Ray gave it for all its life, and what it has loaded on them.

Ray keeps the process of a finished task for the next one and hands that other GPUs, but a process stays with the GPUs that CUDA
found first: two tasks would come to compute on one GPU while another is idle. An actor keeps its GPUs. So steps that take GPUs go
to actors, which are kept while there is work for them: the next step finds the model, or vLLM's engine, loaded.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import ray

IDLE_SECONDS = 60.0
"""How long a worker without work keeps its GPUs where nothing of this run waits for them: shorter than an engine takes to start."""


@dataclass(frozen=True)
class Share:
    """What a worker holds of a node: CPUs, GPUs and custom resources."""

    cpus: float
    gpus: float
    resources: tuple[tuple[str, float], ...] = ()

    def options(self) -> dict[str, Any]:
        """Ray's options of an actor; its environment keeps it out of processes that have loaded libraries without its GPUs."""
        environment = {"env_vars": {"LMMCL_GPU_WORKER": uuid.uuid4().hex}}
        return {
            "num_cpus": self.cpus,
            "num_gpus": self.gpus,
            "resources": dict(self.resources),
            "runtime_env": environment,
        }


class Computing:
    """The actor."""

    def ready(self) -> None:
        """Returns when Ray has placed it."""

    def call(self, body: Callable[..., Any], *arguments: Any) -> Any:
        """What `body` returns."""
        return body(*arguments)


def start_worker(share: Share) -> Any:
    """The handle of a new actor, which Ray places when `share` is free on a node."""
    return ray.remote(Computing).options(**share.options(), max_restarts=0, max_task_retries=0).remote()


@dataclass(eq=False)
class _Worker:
    share: Share
    handle: Any
    loaded: str = ""
    """The checkpoint that it computed or asked last."""
    ending: asyncio.TimerHandle | None = None


@dataclass(eq=False)
class _Starting:
    handle: Any
    task: asyncio.Task[None] | None = None


@dataclass
class _Line:
    """Calls that wait for a worker with one share, and the workers that are being placed for them."""

    waiting: deque[asyncio.Future[_Worker]] = field(default_factory=deque)
    starting: list[_Starting] = field(default_factory=list)


class GpuWorkers:
    """The workers of a run. A call takes an idle one, or the first that is placed or becomes idle.

    A worker is ended when a call fails on it, when it was idle for `idle_seconds`, and as soon as it is idle where others wait:
    calls with other shares, or what `wanted` says (a worker group that Ray Train is to place).
    """

    def __init__(
        self,
        start: Callable[[Share], Any] = start_worker,
        idle_seconds: float = IDLE_SECONDS,
        wanted: Callable[[], bool] = bool,
    ) -> None:
        self._start, self._idle_seconds, self._wanted = start, idle_seconds, wanted
        self._lines: dict[Share, _Line] = defaultdict(_Line)
        self._idle: list[_Worker] = []

    async def call(
        self, share: Share, body: Callable[..., Any], *arguments: Any, near: Collection[str] = (), leaves: str = ""
    ) -> Any:
        """What `body(*arguments)` returns on a worker with `share`: if one is idle that has a checkpoint of `near` loaded, there.

        `leaves` is the checkpoint that the worker has loaded afterwards. Raises what `body` raises, or Ray's error of a worker
        that died.
        """
        worker = await self._take(share, near)
        try:
            result = await worker.handle.call.remote(body, *arguments)
        except BaseException:
            ray.kill(worker.handle)  # what broke one call may stay in the process
            raise
        worker.loaded = leaves
        self._offer(worker)
        return result

    def end_idle(self) -> None:
        """End the workers that have no work, for something else is to have their GPUs."""
        for worker in list(self._idle):
            self._end(worker)

    async def _take(self, share: Share, near: Collection[str]) -> _Worker:
        own = [worker for worker in self._idle if worker.share == share]
        if own:
            worker = next((idle for idle in own if idle.loaded in near), own[-1])
            self._idle.remove(worker)
            if worker.ending:
                worker.ending.cancel()
            return worker
        self.end_idle()
        line = self._lines[share]
        turn: asyncio.Future[_Worker] = asyncio.get_running_loop().create_future()
        line.waiting.append(turn)
        starting = _Starting(self._start(share))
        line.starting.append(starting)
        starting.task = asyncio.create_task(self._placed(share, starting))
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._offer(turn.result())
            self._drop_surplus(line)
            raise

    async def _placed(self, share: Share, starting: _Starting) -> None:
        """Wait until Ray has placed a worker, and give it to the longest waiting call; or the error in its place."""
        line = self._lines[share]
        try:
            await starting.handle.ready.remote()
        except Exception as error:  # noqa: BLE001 - raised where the worker was to be used
            line.starting.remove(starting)
            if turn := _first(line.waiting):
                turn.set_exception(error)
            return
        line.starting.remove(starting)
        self._offer(_Worker(share, starting.handle))

    def _offer(self, worker: _Worker) -> None:
        line = self._lines[worker.share]
        if turn := _first(line.waiting):
            turn.set_result(worker)
            self._drop_surplus(line)
            return
        self._idle.append(worker)
        if self._wanted() or any(_live(other.waiting) for other in self._lines.values()):
            self._end(worker)
        else:
            worker.ending = asyncio.get_running_loop().call_later(self._idle_seconds, self._end, worker)

    def _drop_surplus(self, line: _Line) -> None:
        """Withdraw the youngest requests for workers that nobody waits for any more."""
        while len(line.starting) > _live(line.waiting):
            starting = line.starting.pop()
            if starting.task:
                starting.task.cancel()
            ray.kill(starting.handle)

    def _end(self, worker: _Worker) -> None:
        """An idle worker ends like any process, so that an engine in it can end its own; what was called on it is done."""
        self._idle.remove(worker)
        if worker.ending:
            worker.ending.cancel()
        worker.handle.__ray_terminate__.remote()


def _first(waiting: deque[asyncio.Future[_Worker]]) -> asyncio.Future[_Worker] | None:
    """The first that still waits, taken out of the line."""
    while waiting:
        turn = waiting.popleft()
        if not turn.done():
            return turn
    return None


def _live(waiting: deque[asyncio.Future[_Worker]]) -> int:
    return sum(not turn.done() for turn in waiting)
