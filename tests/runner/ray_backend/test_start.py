"""Where Ray does not answer, or does not get up, a message says so soon; what was started ends soon."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
from typing import Any

import pytest

from lmmcl.config.cluster import Cluster
from lmmcl.errors import UserError
from lmmcl.runner.ray_backend import start as module
from lmmcl.runner.ray_backend.start import ray_cluster


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(module.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(module, "_quiet_environment", lambda: None)


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(**_: Any) -> None:
        raise error

    monkeypatch.setattr(module.ray, "init", fail)


def start(address: str) -> None:
    with ray_cluster(Cluster.model_validate({"ray": {"address": address}})):
        raise AssertionError("nothing is there")


def test_an_address_where_nothing_listens_is_refused_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(UserError, match=rf"ray.address: no Ray cluster answers at 127.0.0.1:{port}"):
        start(f"127.0.0.1:{port}")


def test_an_address_that_no_network_leads_to_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_route(*_: Any, **__: Any) -> None:
        raise OSError(errno.EHOSTUNREACH, "No route to host")

    monkeypatch.setattr(module.socket, "create_connection", no_route)
    with pytest.raises(UserError, match=r"no Ray cluster answers at 10\.0\.0\.1:6379 .*No route to host"):
        start("10.0.0.1:6379")


def test_auto_without_a_cluster_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, ConnectionError("Could not find any running Ray instance."))
    with pytest.raises(UserError, match="no Ray cluster answers at auto"):
        start("auto")


def test_a_machine_too_busy_for_ray_is_told_so_and_other_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, Exception("The current node timed out during startup. This could happen because"))
    with pytest.raises(UserError, match="--inline"):
        start("local")
    for error in (ValueError("no such resource"), PermissionError("/tmp/ray")):
        failing(monkeypatch, error)
        with pytest.raises(type(error)):
            start("local")


ENDED = """
import ray
from lmmcl.config.cluster import Cluster
from lmmcl.runner.ray_backend.start import ray_cluster
from ray._private import worker

def living():
    return {kind: process for kind, process in worker._global_node.live_processes()}

def watched():
    print(*sorted(living()))
    shutdown()
    print(*(kind for kind, process in started.items() if process.poll() is None))

shutdown, ray.shutdown = ray.shutdown, watched
try:
    with ray_cluster(Cluster.model_validate({"ray": {"cpus": 1}})):
        started = living()
        print(*sorted(started))
        raise KeyError("a run that fails")
except KeyError:
    print("failed")
"""


def test_nothing_collects_prints_and_the_monitor_ends_before_the_store_that_it_waits_for_and_nothing_is_left() -> None:
    done = subprocess.run([sys.executable, "-c", ENDED], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    started, ending, left, failed = done.stdout.split("\n")[:4]
    assert {"monitor", "gcs_server"} <= set(started.split())
    assert "log_monitor" not in started.split(), "nobody reads what it would send"
    assert set(started.split()) - set(ending.split()) == {"monitor"}
    assert (left, failed) == ("", "failed")


@pytest.mark.parametrize("dashboard", [False, True])
def test_what_serves_a_dashboard_runs_where_there_is_one(monkeypatch: pytest.MonkeyPatch, dashboard: bool) -> None:
    ended: list[str] = []
    monkeypatch.setattr(module, "_join", lambda *_: ended.append("joined"))
    monkeypatch.setattr(module, "_end_on_sigterm", lambda: None)
    monkeypatch.setattr(module, "end_log_monitor", lambda: ended.append("log monitor"))
    monkeypatch.setattr(module, "end_autoscaler_monitor", lambda: ended.append("monitor"))
    monkeypatch.setattr(module.ray, "shutdown", lambda: ended.append("ray"))
    for name in ("REPORTER_UPDATE_INTERVAL_MS", "RAY_enable_metrics_collection", "RAY_task_events_report_interval_ms"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    with ray_cluster(Cluster.model_validate({"ray": {"dashboard": dashboard}})):
        ended.append("run")
    assert ended == ["joined", *([] if dashboard else ["log monitor"]), "run", "monitor", "ray"]
    assert ("REPORTER_UPDATE_INTERVAL_MS" in module.os.environ) is not dashboard
