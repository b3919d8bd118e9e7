"""A process computes on the GPUs that it was given for all its life, and is kept while there is work for it and nobody waits."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError

from lmmcl.runner.ray_backend import gpu_workers
from lmmcl.runner.ray_backend.gpu_workers import GpuWorkers, Share

ONE, TWO = Share(1, 1), Share(1, 2)


class Node:
    """Stands for Ray on one node: places actors while it has GPUs, in the order in which they were asked for."""

    def __init__(self, gpus: int) -> None:
        self.free, self.requests, self.ended, self.killed = gpus, 0, 0, 0
        self.lost: Exception | None = None

    def start(self, share: Share) -> Any:
        self.requests += 1
        handle = SimpleNamespace(number=self.requests, share=share, held=False)
        handle.ready = SimpleNamespace(remote=lambda: self._ready(handle))
        handle.call = SimpleNamespace(remote=lambda body, *arguments: self._call(handle, body, *arguments))
        handle.__ray_terminate__ = SimpleNamespace(remote=lambda: self._end(handle))
        return handle

    async def _ready(self, handle: Any) -> None:
        while self.free < handle.share.gpus:
            await asyncio.sleep(0.001)
        if self.lost:
            raise self.lost
        self.free, handle.held = self.free - handle.share.gpus, True

    async def _call(self, handle: Any, body: Callable[..., Any], *arguments: Any) -> Any:
        await asyncio.sleep(0.005)
        return handle.number, body(*arguments)

    def _end(self, handle: Any) -> None:
        self.ended += 1
        self._give_back(handle)

    def kill(self, handle: Any) -> None:
        self.killed += 1
        self._give_back(handle)

    def _give_back(self, handle: Any) -> None:
        if handle.held:
            self.free, handle.held = self.free + handle.share.gpus, False


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    made = Node(gpus=2)
    monkeypatch.setattr(gpu_workers.ray, "kill", made.kill)
    return made


def run(scene: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(scene, 20))


def test_calls_one_after_the_other_have_one_worker(node: Node) -> None:
    async def scene() -> list[int]:
        workers = GpuWorkers(node.start)
        return [(await workers.call(ONE, abs, -3))[0] for _ in range(4)]

    assert run(scene()) == [1, 1, 1, 1]
    assert (node.requests, node.free) == (1, 1)


def test_calls_beyond_the_gpus_wait_for_a_worker_and_requests_for_more_are_withdrawn(node: Node) -> None:
    async def scene() -> list[tuple[int, int]]:
        workers = GpuWorkers(node.start)
        return await asyncio.gather(*(workers.call(ONE, abs, -number) for number in range(7)))

    answers = run(scene())
    assert [answer for _, answer in answers] == list(range(7)), "each has its own answer"
    assert {number for number, _ in answers} == {1, 2}, "two GPUs, two workers"
    assert (node.requests, node.killed) == (7, 5)


def test_a_call_goes_where_its_checkpoint_is_loaded(node: Node) -> None:
    async def scene() -> list[int]:
        workers = GpuWorkers(node.start)
        await asyncio.gather(*(workers.call(ONE, abs, 1, leaves=name) for name in ("red", "blue")))
        return [(await workers.call(ONE, abs, 1, near={name}, leaves=name))[0] for name in ("red", "blue", "red")]

    first, second, third = run(scene())
    assert first == third != second


def test_an_idle_worker_ends_where_another_share_is_wanted(node: Node) -> None:
    async def scene() -> None:
        workers = GpuWorkers(node.start)
        await workers.call(ONE, abs, 1)
        await workers.call(TWO, abs, 1)

    run(scene())
    assert (node.requests, node.ended) == (2, 1)


def test_a_worker_that_becomes_idle_while_another_share_waits_is_not_kept(node: Node) -> None:
    async def scene() -> None:
        workers = GpuWorkers(node.start)
        await asyncio.gather(workers.call(ONE, abs, 1), workers.call(ONE, abs, 1), workers.call(TWO, abs, 1))

    run(scene())
    assert node.ended == 2


def test_a_worker_is_not_kept_while_a_worker_group_waits_for_gpus(node: Node) -> None:
    waits = [True]

    async def scene() -> None:
        workers = GpuWorkers(node.start, wanted=lambda: waits[0])
        await workers.call(ONE, abs, 1)
        assert (node.ended, node.free) == (1, 2)
        waits[0] = False
        await workers.call(ONE, abs, 1)
        assert (node.ended, node.free) == (1, 1)
        workers.end_idle()
        assert (node.ended, node.free) == (2, 2)

    run(scene())


def test_a_worker_without_work_gives_its_gpus_back(node: Node) -> None:
    async def scene() -> None:
        workers = GpuWorkers(node.start, idle_seconds=0.02)
        await workers.call(ONE, abs, 1)
        await workers.call(ONE, abs, 1)
        assert node.free == 1
        await asyncio.sleep(0.1)
        assert node.free == 2
        await workers.call(ONE, abs, 1)

    run(scene())
    assert node.requests == 2


def test_a_worker_on_which_a_call_failed_is_not_used_again(node: Node) -> None:
    async def scene() -> int:
        workers = GpuWorkers(node.start)
        with pytest.raises(TypeError, match="bad operand"):
            await workers.call(ONE, abs, "text")
        return (await workers.call(ONE, abs, 1))[0]

    assert run(scene()) == 2
    assert (node.killed, node.free) == (1, 1)


def test_what_ray_says_of_a_worker_that_it_cannot_place_reaches_the_call_that_waits(node: Node) -> None:
    async def scene() -> int:
        workers = GpuWorkers(node.start)
        node.lost = ActorDiedError()
        with pytest.raises(ActorDiedError):
            await workers.call(ONE, abs, 1)
        node.lost = None
        return (await workers.call(ONE, abs, 1))[1]

    assert run(scene()) == 1


def test_a_call_that_is_cancelled_while_it_waits_leaves_no_request_behind(node: Node) -> None:
    async def scene() -> None:
        workers = GpuWorkers(node.start)
        node.free = 0
        waiting = asyncio.create_task(workers.call(ONE, abs, 1))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        node.free = 2
        await workers.call(ONE, abs, 1)

    run(scene())
    assert (node.requests, node.killed, node.free) == (2, 1, 1)


@pytest.mark.slow
def test_on_ray_no_process_is_given_a_second_gpu_and_processes_stay() -> None:
    ray.init(address="local", num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False)

    def where(seconds: float) -> tuple[int, str]:  # local, so that Ray sends its code
        time.sleep(seconds)
        return os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"]

    async def scene() -> tuple[list[Any], tuple[int, str]]:
        workers = GpuWorkers()
        seen = [
            each for _ in range(3) for each in await asyncio.gather(*(workers.call(ONE, where, 0.3) for _ in range(4)))
        ]
        with pytest.raises(ActorDiedError):
            await workers.call(ONE, lambda: os._exit(1))  # as where the memory of a GPU node runs out
        return seen, await workers.call(TWO, where, 0)

    try:
        ray.get(ray.remote(num_cpus=1)(lambda: os.getpid()).remote())  # a process that was there before
        seen, both = asyncio.run(asyncio.wait_for(scene(), 120))
        processes: dict[int, set[str]] = {}
        for process, gpus in seen:
            processes.setdefault(process, set()).add(gpus)
        assert sorted(map(sorted, processes.values())) == [["0"], ["1"]]
        assert both[0] not in processes
        assert sorted(both[1].split(",")) == ["0", "1"]
    finally:
        ray.shutdown()
