"""What happens on Ray before Tune's trials start: rows are checked, the pre-trained model is asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayActorError

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


class Loading:
    """Tune, whose import waits for `go`; and an actor that answers at once, or with an error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
        self.imported: list[str] = []
        self.go = threading.Event()
        self.actor = SimpleNamespace(load=SimpleNamespace(remote=lambda: error))
        monkeypatch.setattr(backend.importlib, "import_module", self._load)
        monkeypatch.setattr(backend.ray, "get", self._get)

    def _load(self, name: str) -> None:
        assert self.go.wait(20)
        self.imported.append(name)

    def _get(self, value: Exception | None) -> None:
        if value is not None:
            raise value


def test_tune_is_loaded_beside_what_is_done_meanwhile_and_there_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    loading, watcher = Loading(monkeypatch), Watcher()
    with backend._tune_loaded_ahead(loading.actor, watcher):  # type: ignore[arg-type]
        assert not loading.imported
        threading.Timer(0.2, loading.go.set).start()
    assert tuple(loading.imported) == backend.TUNE
    assert watcher.events == [("phase", "loading Ray Tune")], "it is said where the run waits for it"


def test_data_that_is_refused_ends_the_run_once_tune_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    loading, watcher = Loading(monkeypatch), Watcher()
    loading.go.set()
    with pytest.raises(UserError, match="cannot be read"), backend._tune_loaded_ahead(loading.actor, watcher):  # type: ignore[arg-type]
        raise UserError("cannot be read")
    assert not [thread for thread in threading.enumerate() if thread.name == "lmmcl-load-tune"]
    assert not watcher.events


@pytest.fixture
def unhandled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Errors that ended a thread."""
    errors: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", errors.append)
    return errors


def test_an_actor_that_is_lost_is_left_to_the_trials_that_need_it(
    monkeypatch: pytest.MonkeyPatch, unhandled: list[Any]
) -> None:
    loading = Loading(monkeypatch, error=RayActorError())
    with backend._tune_loaded_ahead(loading.actor, Watcher()):  # type: ignore[arg-type]
        pass
    assert not loading.imported
    assert not unhandled


def test_a_library_that_is_missing_is_left_to_the_import_that_needs_it(
    monkeypatch: pytest.MonkeyPatch, unhandled: list[Any]
) -> None:
    monkeypatch.setattr(backend, "TUNE", ("lmmcl_no_such_module",))
    actor = SimpleNamespace(load=SimpleNamespace(remote=lambda: None))
    with backend._tune_loaded_ahead(actor, Watcher()):  # type: ignore[arg-type]
        pass
    assert not unhandled
