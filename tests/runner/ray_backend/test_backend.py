"""What happens on Ray before Tune's trials start: rows are checked, the pre-trained model is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from lmmcl.config.cluster import Cluster
from lmmcl.errors import UserError
from lmmcl.runner.ray_backend import backend


class Watcher:
    def __init__(self) -> None:
        self.events: list[Any] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: self.events.append((name, *arguments))


def actor_with(*notes: Mapping[str, Mapping[str, Any]]) -> Any:
    """An actor that says `notes`, one after the other, of what is running."""
    left = list(notes)
    return SimpleNamespace(running=SimpleNamespace(remote=lambda: left.pop(0)))


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(backend.ray, "get", lambda value: value)
    monkeypatch.setattr(backend, "POLL_SECONDS", 0.0)


@pytest.mark.parametrize("last", [{"base": {"benchmark": "colour"}}, {}], ids=["asked", "nothing to ask"])
def test_trials_start_once_the_first_question_is_asked_or_there_is_none(last: dict) -> None:
    watcher = Watcher()
    waiting: list[dict] = [{"base": {}}, {"base": {"doing": "loading the model"}}]
    backend._wait_for_question(actor_with(*waiting, last), watcher)
    assert watcher.events == [("running", note) for note in (*waiting, last)]


def test_trials_do_not_wait_for_a_question_that_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "FIRST_SECONDS", 0.05)
    backend._wait_for_question(SimpleNamespace(running=SimpleNamespace(remote=lambda: {"base": {}})), Watcher())


def test_on_a_joined_cluster_rows_are_checked_in_the_process_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = UserError("cannot be read")
    monkeypatch.setattr(backend, "examine_rows", lambda rows: (["a note"], [refused]))
    joined = Cluster.model_validate({"ray": {"address": "auto"}})
    assert backend._examine([], joined) == (["a note"], [refused])
