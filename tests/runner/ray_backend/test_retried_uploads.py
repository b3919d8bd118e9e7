"""A store that is away costs an upload on a cluster, never the computation whose result waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made import made_trial
from ray.exceptions import NodeDiedError, RayTaskError

from lmmcl.back_off import BackOff
from lmmcl.config.cluster import Cluster
from lmmcl.ledger import Ledger
from lmmcl.ledger.store import StoreError
from lmmcl.runner.ray_backend import steps_actor
from lmmcl.training.ray_train import node_output

STEP = made_trial().stages[1].checkpoint
NODE, OTHER = "ab" * 28, "cd" * 28
AWAY = RayTaskError("upload", "traceback", StoreError("cannot be reached")).as_instanceof_cause()


class Task:
    """In the place of a remote function: gives or raises one outcome after another."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes, self.calls = list(outcomes), 0

    def options(self, **_: Any) -> Task:
        return self

    async def remote(self, *_: Any, **__: Any) -> Any:
        self.calls += 1
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Task, Task], None]:
    monkeypatch.setattr(steps_actor.ray, "get_runtime_context", lambda: SimpleNamespace(current_actor=None))
    monkeypatch.setattr(steps_actor, "PAUSES", BackOff(0.0))

    def run(computation: Task, upload: Task) -> None:
        monkeypatch.setattr(steps_actor, "_upload", upload)
        executor = steps_actor.RayExecutor(Ledger(str(tmp_path)), Cluster())
        executor._call = computation.remote  # type: ignore[method-assign]
        asyncio.run(executor._try(print, {}, [STEP]))

    return run


def test_an_upload_that_failed_is_tried_again_without_the_computation(run: Any) -> None:
    computation, upload = Task(NODE), Task(AWAY, AWAY, None)
    run(computation, upload)
    assert (computation.calls, upload.calls) == (1, 3)


def test_a_store_that_stays_away_is_told_after_a_few_tries(run: Any) -> None:
    computation, upload = Task(NODE), Task(*[AWAY] * 50)
    with pytest.raises(StoreError, match="cannot be reached"):
        run(computation, upload)
    assert (computation.calls, upload.calls) == (1, Cluster().training.max_failures + 1)


def test_what_waited_on_a_node_that_went_is_computed_again(run: Any) -> None:
    computation, upload = Task(NODE, OTHER), Task(AWAY, NodeDiedError("gone"), None)
    run(computation, upload)
    assert (computation.calls, upload.calls) == (2, 3)


def test_what_a_worker_group_left_is_uploaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = SimpleNamespace(path=STEP.path)
    asked: list[Any] = []

    def get(_: Any) -> None:
        asked.append(_)
        if len(asked) < 3:
            raise AWAY

    commit = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda *_: None))
    monkeypatch.setattr(node_output, "_commit", commit)
    monkeypatch.setattr(node_output.ray, "get", get)
    monkeypatch.setattr(node_output, "PAUSES", BackOff(0.0))
    monkeypatch.setattr(Ledger, "find", lambda *_: found)
    left, ledger = node_output.RemoteOutput(NODE, str(tmp_path)), Ledger(str(tmp_path))
    assert left.commit(STEP, ledger, {}, tries=2) is found
    asked.clear()
    with pytest.raises(StoreError):
        left.commit(STEP, ledger, {}, tries=1)


def test_a_failed_upload_of_what_a_group_left_goes_on_from_what_was_staged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ledger = Ledger(f"memory://{tmp_path.name}")
    folder = ledger.node.make_temp_dir("left-")
    (folder / "delta.safetensors").write_text("weights")
    upload = Ledger.upload

    def away(*_: Any) -> None:
        raise StoreError("cannot be reached")

    monkeypatch.setattr(Ledger, "upload", away)
    commit = node_output._commit._function  # what the remote function runs
    with pytest.raises(StoreError):
        commit(STEP, ledger, str(folder), {"value": 1})
    monkeypatch.setattr(Ledger, "upload", upload)
    commit(STEP, ledger, str(folder), {"value": 1})
    with ledger.opened(STEP.path, "delta.safetensors") as path:
        assert path.read_text() == "weights"
